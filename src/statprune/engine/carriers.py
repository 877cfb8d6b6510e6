"""Note what a site's carriers are fitted on: values in attention, both halves of a perceptron.

It is noted while the block runs anyway. Of a perceptron that is what its producers read: the rest is computed
from that. In attention it is the scores: the attention kernel is called a second time, for the heads kept, on
what the values are made of.

Sources: docs/algorithm.md, "Carry"; engine/carrier_fits.py fits them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from statprune.anatomy.producers import module_at, shape_of
from statprune.anatomy.ranks import ALONE, Ranks
from statprune.anatomy.sites import Site
from statprune.calibration.reading import real_rows
from statprune.engine.carrier_fits import fit_perceptron, fit_values
from statprune.engine.carrier_notes import KERNEL, MOST, Call, Notes, Part
from statprune.engine.head_values import with_narrow_carrier
from statprune.engine.owner import by_owner
from statprune.engine.trace import Trace
from statprune.linalg.bilinear import Mixed

ENOUGH = 64
"""Tokens for each of a carrier's inputs, at least: with fewer its fit follows noise."""

WIDE = 64
"""Inputs from which on products in bfloat16 pay: 1.8 to 2.2 times as fast from 64 to 384, 1.3 times at 32."""

ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def worthwhile(block: nn.Module, site: Site, tokens: int) -> bool:
    """Whether so many tokens, as far as they are noted, are enough for the carrier of `site`."""
    return _noted_tokens(block, site, tokens) > 0


def noted_bytes(block: nn.Module, site: Site, tokens: int) -> int:
    """How many bytes its fit takes at the most, with all units kept.

    Of attention float32 what the heads mix, twice for a while, and the rest. Of a perceptron, for a unit,
    what both producers make, and the factors in float32 and bfloat16, or what the consumer reads; what the
    producers read, once more with ones, and in bfloat16; the target, and what is missing of it.
    """
    rows = _noted_tokens(block, site, tokens)
    if rows == 0:
        return 0
    if site.kind == "attention":
        return 9 * rows * _numbers_a_token(site, _inputs(block, site))
    outputs = shape_of(module_at(block, site.consumer))[0]
    return rows * (14 * site.units + 12 * _inputs(block, site) + 12 * outputs)


def _noted_tokens(block: nn.Module, site: Site, tokens: int) -> int:
    if noted_at(site) is None:
        return 0
    inputs = _inputs(block, site)
    rows = min(tokens, MOST // _numbers_a_token(site, inputs))
    return rows if rows >= ENOUGH * inputs else 0


def _inputs(block: nn.Module, site: Site) -> int:
    path = noted_at(site)
    return 0 if path is None else shape_of(module_at(block, path))[1]


def noted_at(site: Site) -> str | None:
    """The weight whose input is noted; None where no carrier of `site` can be refitted."""
    if site.kind == "attention":
        return None if site.carrier is None else site.carrier.path
    return None if site.activated is None or site.activation is None else site.activated.path


def _numbers_a_token(site: Site, inputs: int) -> int:
    return 2 * site.units if site.kind == "feed_forward" else site.units * site.group * inputs


class _Kernel(TorchFunctionMode):
    """Notes what the attention kernel is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is KERNEL:
            named = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
            self.calls.append({name: value for name, value in named.items() if name != "value"})
        return func(*args, **kwargs)


class Observer:
    """Notes, while a block runs, what the carriers of `site` read, and how values reach the consumer.

    `behind` is how many tokens other processes note that come before these; with `exact` all is noted, and
    products will be formed, in float64.
    """

    def __init__(self, block: nn.Module, site: Site, behind: int = 0, *, exact: bool = False) -> None:
        path = noted_at(site)
        if path is None:
            raise ValueError(f"{site.name} has no carrier to observe.")
        self._module = module_at(block, path)
        self.site = site
        dtype = torch.float64 if exact else torch.float32
        behind *= _numbers_a_token(site, shape_of(self._module)[1])
        self.notes = Notes(numbers=behind, dtype=dtype)
        self._kernel = _Kernel()
        self._inputs: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs, batch by batch; `take` is called behind each."""

        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._inputs.append(inputs[0])

            self._kernel.calls.clear()  # those of an attention before this one

        hook = self._module.register_forward_pre_hook(before)
        try:
            if self.site.kind == "attention":
                with self._kernel:
                    yield
            else:
                yield
        finally:
            hook.remove()

    def take(self, Z: Tensor, target: Tensor, real: Tensor, row_weights: Tensor) -> None:
        """Note one batch: what the consumer reads, its target, and weights; `real` (batch, length)."""
        notes, calls = self.notes, self._kernel.calls
        x = self._inputs.pop()
        self._inputs.clear()  # of passes that memory was short for
        if notes.full:
            calls.clear()
            return
        if self.site.kind == "feed_forward":
            notes.inputs.append(real_rows(x, real).to(notes.dtype))
        elif len(calls) == 1:
            notes.calls.append(Call(calls.pop(), x, real))
            notes.read.append(Z.to(notes.dtype))
        else:  # another kernel than torch's, or several calls of it: nothing is known of this site
            calls.clear()
            return
        notes.numbers += len(Z) * _numbers_a_token(self.site, x.shape[-1])
        notes.target.append(target.to(notes.dtype))
        notes.row_weights.append(row_weights.to(notes.dtype))


def improve(
    block: nn.Module,
    site: Site,
    kept: Tensor,
    notes: Notes,
    ranks: Ranks = ALONE,
    basis: Tensor | None = None,
) -> None:
    """Refit the carriers of `site`, which has been cut to `kept`, and its consumer after each.

    Where values have been narrowed, `basis` (columns, fewer) says of what the kept heads' columns are made.
    Nothing is done where nothing was noted, or nothing is missing. Of several processes the first does it,
    with what all have noted.
    """
    found = [part for part in ranks.collected(notes.part(site, kept)) if part is not None]
    by_owner(ranks, 0, block, site, Trace(), lambda: _improve(block, site, len(kept), found, basis))


def _improve(block: nn.Module, site: Site, count: int, found: list[Part], basis: Tensor | None) -> None:
    if not found:
        return
    whole = Part.joined(found)
    if whole.read is not None:
        Z = whole.read
        if basis is not None:
            Z, site = Z @ basis.to(Z), with_narrow_carrier(site, basis.shape[1] // (count * site.group))
        fit_values(block, site, Mixed(whole.inputs, site.group, whole.row_weights), Z, whole.target)
        return
    X = whole.inputs
    fit_perceptron(block, site, count, X, whole.target, product_dtype(X), whole.row_weights)


def product_dtype(X: Tensor) -> torch.dtype:
    """In which dtype products of X (rows, inputs) are formed: its own, float64 or float32, or bfloat16.

    bfloat16 where the device multiplies it fast and there are inputs enough: conjugate gradients correct
    themselves, but for what comes of rounding, about a thousandth of a step.
    """
    device = X.device
    if X.dtype == torch.float64 or X.shape[1] < WIDE:
        return X.dtype
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    elif device.type == "cpu":
        known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        fast = known is not None and bool(known())
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32
