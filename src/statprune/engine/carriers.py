"""Refit what carries a site's content: values, or up beside a gate, once its units are chosen.

What is needed for that is noted while the block runs anyway: beside a gate, the factor with which each output
of the carrier reaches the consumer is what the consumer reads over that output. In attention it is the
scores: the attention kernel is called a second time, for the heads kept, on what the values are made of.

Sources: docs/algorithm.md, "Carriers"; linalg/bilinear.py.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from statprune.anatomy.producers import module_at, shape_of
from statprune.anatomy.ranks import ALONE, Ranks
from statprune.anatomy.sites import Site
from statprune.calibration.reading import real_rows
from statprune.engine.owner import by_owner
from statprune.engine.trace import Trace
from statprune.linalg.bilinear import Gated, Mixed, refit_producer, slices_of
from statprune.linalg.least_squares import ridge
from statprune.linalg.moments import MomentSum
from statprune.surgery.linear import add_to_bias, set_weight, weight_of

MOST = 2**28
"""Numbers that are noted for one site, at most; the samples behind are left out of its carrier's fit."""

ENOUGH = 64
"""Tokens for each of a carrier's inputs, at least: with fewer its fit follows noise."""

AGAIN = 1e-1
"""Damping of the consumer's fit after that of the carrier, towards what it is."""

KERNEL = torch.nn.functional.scaled_dot_product_attention
ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def worthwhile(block: nn.Module, site: Site, tokens: int) -> bool:
    """Whether so many tokens, as far as they are noted, are enough for the carrier of `site`."""
    return noted_numbers(block, site, tokens) > 0


def noted_numbers(block: nn.Module, site: Site, tokens: int) -> int:
    """How many numbers are noted for the carrier of `site`; none where so many tokens are too few."""
    if site.carrier is None:
        return 0
    _, inputs = shape_of(module_at(block, site.carrier.path))
    numbers = _numbers_a_token(site, inputs)
    return numbers * min(tokens, MOST // numbers) if min(tokens, MOST // numbers) >= ENOUGH * inputs else 0


def _numbers_a_token(site: Site, inputs: int) -> int:
    return 2 * site.units if site.kind == "feed_forward" else site.units * site.group * inputs


@dataclass(frozen=True, eq=False)
class Call:
    """What the attention kernel was called with, but for the values, and for which tokens.

    `hidden` (batch, length, width) is what the values are made of, `real` (batch, length) bool.
    """

    named: dict[str, Any]
    hidden: Tensor
    real: Tensor

    def mixed(self, heads: Tensor, units: Tensor) -> Tensor:
        """The scores of these heads times what values are made of, (heads, tokens, width), real tokens."""
        named = dict(self.named)
        query, key = named["query"], named["key"]
        named["query"] = query[:, heads]
        named["key"] = key[:, heads if key.shape[1] == query.shape[1] else units]
        mask = named.get("attn_mask")
        if mask is not None and mask.ndim == query.ndim and mask.shape[1] == query.shape[1]:
            named["attn_mask"] = mask[:, heads]
        named["value"] = self.hidden[:, None].expand(-1, named["key"].shape[1], -1, -1)
        found: Tensor = KERNEL(**named).transpose(0, 1)
        return found.flatten(1, 2) if bool(self.real.all()) else found[:, self.real]


@dataclass(eq=False)
class Notes:
    """What one site's carrier is fitted on, one entry a batch, real tokens only.

    `read` (tokens, columns) is what the consumer reads, `target` (tokens, outputs) what it should return;
    `inputs` (tokens, width) and `factors` (tokens, units) of a gate; `calls` of an attention kernel.
    """

    read: list[Tensor] = field(default_factory=list)
    target: list[Tensor] = field(default_factory=list)
    dtype: torch.dtype = torch.float32
    inputs: list[Tensor] = field(default_factory=list)
    factors: list[Tensor] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    numbers: int = 0

    @property
    def full(self) -> bool:
        """Whether no more is noted."""
        return self.numbers >= MOST

    def reading(self, site: Site, kept: Tensor) -> Gated | Mixed:
        """Of the units `kept` (count,)."""
        if site.kind == "feed_forward":
            return Gated(torch.cat(self.inputs), torch.cat([each[:, kept] for each in self.factors]))
        heads = site.heads_of(kept)
        mixed = [call.mixed(heads, kept).to(self.dtype) for call in self.calls]
        return Mixed(torch.cat(mixed, dim=1), site.group)

    def part(self, site: Site, kept: Tensor) -> "Part | None":
        """All that a fit of the units `kept` (count,) takes; None if nothing was noted."""
        if not self.read:
            return None
        Z = torch.cat([each[:, site.columns_of(kept)] for each in self.read])
        return Part(self.reading(site, kept), Z, torch.cat(self.target))


@dataclass(frozen=True, eq=False)
class Part:
    """What a carrier is fitted on: how it is read, what the consumer reads, and what it should return."""

    reading: Gated | Mixed
    Z: Tensor
    target: Tensor

    @staticmethod
    def joined(parts: "Sequence[Part]") -> "Part":
        """All of their rows, in order."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0].reading
        if isinstance(first, Gated):
            gated = [cast(Gated, part.reading) for part in parts]
            reading: Gated | Mixed = Gated(torch.cat([g.X for g in gated]), torch.cat([g.S for g in gated]))
        else:
            mixed = [cast(Mixed, part.reading).F for part in parts]
            reading = Mixed(torch.cat(mixed, dim=1), first.group)
        return Part(reading, torch.cat([p.Z for p in parts]), torch.cat([p.target for p in parts]))


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
    """Notes, while a block runs, what the carrier of `site` reads and how it reaches the consumer.

    `behind` is how many tokens other processes note that come before these; with `exact` all is noted, and
    products will be formed, in float64.
    """

    def __init__(self, block: nn.Module, site: Site, behind: int = 0, *, exact: bool = False) -> None:
        if site.carrier is None:
            raise ValueError(f"{site.name} has no carrier to observe.")
        _, inputs = shape_of(module_at(block, site.carrier.path))
        self.site, self._exact = site, exact
        dtype = torch.float64 if exact else torch.float32
        self.notes = Notes(numbers=behind * _numbers_a_token(site, inputs), dtype=dtype)
        self._module = module_at(block, site.carrier.path)
        self._kernel = _Kernel()
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs, batch by batch; `take` is called behind each."""

        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._inputs.append(inputs[0])

        def after(_: nn.Module, __: Any, output: Tensor) -> None:
            self._outputs.append(output)
            self._kernel.calls.clear()  # those of an attention before this one

        module = self._module
        hooks = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        try:
            if self.site.kind == "attention":
                with self._kernel:
                    yield
            else:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def take(self, Z: Tensor, target: Tensor, real: Tensor) -> None:
        """Note one batch: what the consumer reads, and its target; `real` (batch, length)."""
        notes, calls = self.notes, self._kernel.calls
        x, p = self._inputs.pop(), self._outputs.pop()
        for failed in (self._inputs, self._outputs):  # of passes that memory was short for
            failed.clear()
        if notes.full:
            calls.clear()
            return
        if self.site.kind == "feed_forward":
            own = self.site.carrier.rows_of(self.site.units)  # type: ignore[union-attr]
            produced, dtype = real_rows(p, real)[:, own], self._product_dtype(Z.device)
            factors = torch.where(produced == 0, torch.zeros_like(Z), Z / produced)
            notes.inputs.append(real_rows(x, real).to(dtype))
            notes.factors.append(factors.to(dtype))
        elif len(calls) == 1:
            notes.calls.append(Call(calls.pop(), x, real))
        else:  # another kernel than torch's, or several calls of it: nothing is known of this site
            calls.clear()
            return
        notes.numbers += len(Z) * _numbers_a_token(self.site, x.shape[-1])
        notes.read.append(Z.to(notes.dtype))
        notes.target.append(target.to(notes.dtype))

    def _product_dtype(self, device: torch.device) -> torch.dtype:
        return torch.float64 if self._exact else product_dtype(device)


def improve(block: nn.Module, site: Site, kept: Tensor, notes: Notes, ranks: Ranks = ALONE) -> None:
    """Refit the carrier of `site`, which has been cut to `kept`, and its consumer after it.

    Nothing is done where nothing was noted, or nothing is missing. Of several processes the first does it,
    with what all have noted.
    """
    found = [part for part in ranks.collected(notes.part(site, kept)) if part is not None]
    by_owner(ranks, 0, block, site, Trace(), lambda: _improve(block, site, kept, found))


def _improve(block: nn.Module, site: Site, kept: Tensor, found: list[Part]) -> None:
    if site.carrier is None or not found:
        return
    whole = Part.joined(found)
    carrier, consumer = module_at(block, site.carrier.path), module_at(block, site.consumer)
    constant = consumer.bias is not None
    reading, Z, missing = whole.reading, whole.Z, whole.target
    B = weight_of(consumer).T.to(Z.dtype)
    if constant:
        missing -= consumer.bias.to(Z.dtype)
    missing.addmm_(Z, B, alpha=-1)
    if not bool(missing.any()):
        return
    W = weight_of(carrier).clone()
    D = refit_producer(reading, B, missing, constant=constant)
    W[site.carrier.rows_of(len(kept))] += D.to(W.dtype)
    set_weight(carrier, W)
    total = MomentSum(Z.shape[1], B.shape[1], constant=constant, device=Z.device, products=Z.dtype)
    d = D.to(reading.dtype)
    for rows in slices_of(reading):
        moved = reading.products(d, rows).to(Z.dtype)
        total.update(Z[rows] + moved, torch.addmm(missing[rows], moved, B, alpha=-1))
    left = total.moments()
    fitted = ridge(left.G, left.C, AGAIN).X
    set_weight(consumer, weight_of(consumer) + fitted.T.to(W.dtype))
    if constant:
        add_to_bias(consumer, left.shift(fitted))


def product_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it fast: conjugate gradients correct themselves. Else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    elif device.type == "cpu":
        known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        fast = known is not None and bool(known())
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32
