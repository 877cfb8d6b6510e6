"""What an entry promises, tried out on a model: for entries that no test of ours has seen.

The same contracts run over every entry of ours in tests/contracts.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.parts import BLOCK
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.calibration.batches import Batch, inputs_of
from statprune.calibration.stream import Stream, advance, before_first_block
from statprune.engine.carrier_fits import Perceptron
from statprune.errors import ModelError, short_of_memory
from statprune.surgery.cut import cut
from statprune.surgery.linear import weight_of

ULPS = 2048
"""Differences allowed, in units in the last place of the largest value: sums run in another order."""

MOST = 0.05
"""Share of the largest value that they may be at most: of half precision those units are too large."""


@torch.no_grad()
def require_contracts(model: PreTrainedModel, anatomy: Anatomy, batch: Batch) -> None:
    """Try the entry of `model` out on a batch, in the first and the last block of every stack.

    Four things: walking block by block ends where the model does; cutting units is zeroing the columns that
    read them; what the entry calls a residual is what the consumer's output is added to; and a perceptron's
    consumer reads what the entry's activation makes.

    Raises:
        ModelError: one of them is not so; names the place and the difference.
    """
    try:
        _try_out(model, anatomy, batch)
    except (RuntimeError, TypeError, AttributeError) as error:
        if short_of_memory(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the blocks of {type(model).__name__} do not run one by one: {first}. "
            f"{_ADVICE} extras or carried."
        ) from error


def _try_out(model: PreTrainedModel, anatomy: Anatomy, batch: Batch) -> None:
    outputs: dict[int, Tensor] = {}
    hooks = [
        block.register_forward_hook(
            lambda _, __, out, number=number: outputs.__setitem__(number, _hidden_of(out))
        )
        for number, block in enumerate(anatomy.blocks)
    ]
    try:
        model.base_model(**inputs_of(model, batch))
    finally:
        for hook in hooks:
            hook.remove()
    stream = before_first_block(model, anatomy, [batch])
    tried = {number for run in anatomy.runs for number in (run.start, run.end - 1)}
    for number, block in enumerate(anatomy.blocks):
        stream.stand_before(number)
        sites = anatomy.sites_of_block(number)
        if number in tried:
            for site in sites:
                _require_cut_is_mask(stream, block, site)
            _require_residuals(stream, block, number, sites)
        advance(stream, block, number)
        if number not in outputs:
            raise ModelError(f"block {number} of {type(model).__name__} does not run. {_ADVICE} blocks.")
        _require_near(
            stream.hidden[0], outputs[number], f"block {number}, run by itself", "extras or carried"
        )


def _require_cut_is_mask(stream: Stream, block: nn.Module, site: Site) -> None:
    kept = torch.arange(0, site.units, 2) if site.units > 1 else torch.arange(1)
    columns = site.columns_of(kept)
    masked, narrowed = deepcopy(block), deepcopy(block)
    weight = weight_of(module_at(masked, site.consumer))
    dropped = torch.ones(weight.shape[1], dtype=torch.bool)
    dropped[columns] = False
    cut(narrowed, site, kept, weight[:, columns.to(weight.device)].clone())
    weight[:, dropped.to(weight.device)] = 0
    try:
        found = _passed(stream, narrowed, site.block)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{site.name}: with half of its units the block fails: {first}. {_ADVICE} follows."
        ) from error
    expected = _passed(stream, masked, site.block)
    _require_near(
        found, expected, f"{site.name}: cutting units, against zeroing their columns,", "fused or follows"
    )


def _require_residuals(stream: Stream, block: nn.Module, number: int, sites: Sequence[Site]) -> None:
    """The sum of residual and consumer's output is read by some module of the block, or returned by it."""
    for site in sites:
        if site.kind == "attention" and any(
            BLOCK in other.residual for other in sites if other.kind == "feed_forward"
        ):
            continue  # both parts' outputs are added at once
        reads: dict[str, Tensor] = {BLOCK: stream.hidden[0]}
        with _noting(block, site.consumer, reads):
            returned = _passed(stream, block, number)
        whole = sum((reads[path] for path in site.residual), reads["returned"])
        gone_on = [*reads.values(), returned]
        _require_activation(block, site, reads)
        near = min((_distance(each, whole) for each in gone_on if each.numel() == whole.numel()), default=1.0)
        if near > _allowed(whole.dtype):
            said = [path or "the input of the block" for path in site.residual] or ["nothing"]
            raise ModelError(
                f"{site.name}: {' + '.join(said)} + the output of {site.consumer} "
                f"is read nowhere in the block (nearest: {near:.2g} off). {_ADVICE} residual."
            )


def _require_activation(block: nn.Module, site: Site, reads: Mapping[str, Tensor]) -> None:
    """What the consumer reads is what gate, up and activation make, as the entry has them."""
    if site.activated is None or site.activation is None:
        return
    what = f"{site.name}: what {site.activation} makes of {site.activated.path}, with all that it is times,"
    keys = "activation, gate or up"
    X, Z = (reads[path].flatten(0, -2).float() for path in (site.activated.path, site.consumer))
    try:
        off = Perceptron(block, site, site.units, X).read() - Z
    except (RuntimeError, TypeError, AttributeError) as error:
        if short_of_memory(error):
            raise
        raise ModelError(f"{what} cannot be computed: {error}. {_ADVICE} {keys}.") from error
    far = float(off.norm() / Z.norm().clamp(min=1e-30))
    if not far <= _allowed(reads[site.consumer].dtype):
        raise ModelError(f"{what} is {far:.2g} off. {_ADVICE} {keys}.")


@contextmanager
def _noting(block: nn.Module, consumer: str, reads: dict[str, Tensor]) -> Iterator[None]:
    def before(path: str) -> Any:
        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor) and args[0].is_floating_point():
                reads[path] = args[0]

        return note

    hooks = [
        module.register_forward_pre_hook(before(path))
        for path, module in block.named_modules()
        if path != BLOCK
    ]
    hooks.append(
        module_at(block, consumer).register_forward_hook(
            lambda _, __, out: reads.__setitem__("returned", out)
        )
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _passed(stream: Stream, block: nn.Module, number: int) -> Tensor:
    walk = stream.fork()
    advance(walk, block, number)
    return walk.hidden[0]


def _hidden_of(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    gap = (found.reshape(expected.shape).double() - expected.double()).abs().max()
    return float(gap / expected.double().abs().max().clamp(min=1e-30))


def _allowed(dtype: torch.dtype) -> float:
    return float(min(MOST, ULPS * torch.finfo(dtype).eps))


def _require_near(found: Tensor, expected: Tensor, what: str, keys: str) -> None:
    if found.shape != expected.shape:
        raise ModelError(f"{what} gives {tuple(found.shape)}, not {tuple(expected.shape)}. {_ADVICE} {keys}.")
    far = _distance(found, expected)
    if not far <= _allowed(expected.dtype):
        raise ModelError(f"{what} is {far:.2g} off. {_ADVICE} {keys}.")


_ADVICE = "The entry does not describe this model: check"
