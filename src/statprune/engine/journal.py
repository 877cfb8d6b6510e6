"""What a run has done so far, block by block, so that a killed one can go on.

An engine notes what it has made of a block. A run that goes on is given that again, instead of making it: the
calibration data still walks through every block, so that hidden states are those of before, bit for bit.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from statprune.anatomy.producers import module_at
from statprune.anatomy.ranks import ALONE, Ranks, from_each
from statprune.anatomy.shelf import State
from statprune.anatomy.sites import Site
from statprune.anatomy.spilled import BITS
from statprune.calibration.stream import Stream
from statprune.engine.head_values import narrow_heads
from statprune.engine.trace import SiteTrace, Trace
from statprune.errors import StatpruneWarning
from statprune.surgery.cut import cut, own_columns


def narrowed(
    block: nn.Module, trace: Trace, since: tuple[int, int], thin: Stream, ranks: Ranks = ALONE
) -> State:
    """The state of a block that is done: its weights, and what the trace says since `mark`."""
    facts = said_since(trace, since) | {"behind": checksum(thin, ranks)}
    return State(dict(block.named_parameters()), facts)


def mark(trace: Trace) -> tuple[int, int]:
    """How much the trace says now."""
    return len(trace.sites), len(trace.warnings)


def narrow_again(block: nn.Module, sites: Sequence[Site], state: State) -> None:
    """Make of these sites of a dense block what `state` says they became."""
    by_name = {site.name: site for site in sites}
    for facts in state.facts["sites"]:
        site = by_name.get(facts["site"])
        if site is not None:
            kept = torch.tensor(facts["kept"], dtype=torch.int64)
            cut(block, site, kept, own_columns(block, site, kept))
    for name, old in parameters_of(block, sites).items():
        path, _, own = name.rpartition(".")
        value = state.tensors[name].to(old, copy=True)  # never in place: someone may remember the old ones
        setattr(block.get_submodule(path), own, nn.Parameter(value, requires_grad=old.requires_grad))
    for facts in state.facts["sites"]:
        site = by_name.get(facts["site"])
        if site is not None and site.values_apart:
            columns = module_at(block, site.consumer).weight.shape[1]
            value_dim = columns // (len(facts["kept"]) * site.group)
            if value_dim < site.value_dim:
                narrow_heads(block, site, value_dim)


def parameters_of(block: nn.Module, sites: Sequence[Site]) -> dict[str, nn.Parameter]:
    """Those of the block that the producers and consumers of `sites` have."""
    paths = {path for site in sites for path in (site.consumer, *(each.path for each in site.producers))}
    return {name: value for name, value in block.named_parameters() if name.rpartition(".")[0] in paths}


def said_since(trace: Trace, since: tuple[int, int]) -> dict[str, Any]:
    """What the trace says since `mark`, JSON-able; `recall_sites` says it again."""
    sites, said = since
    return {"sites": [asdict(each) for each in trace.sites[sites:]], "warnings": trace.warnings[said:]}


def recall_sites(state: State, trace: Trace) -> None:
    """Say again what was said of a block's sites."""
    trace.sites += [SiteTrace(**facts) for facts in state.facts["sites"]]
    trace.warnings += state.facts["warnings"]


def recall(state: State, trace: Trace, thin: Stream, ranks: Ranks = ALONE) -> None:
    """Say again what was said of a block; warn if the data does not come out of it as it did."""
    recall_sites(state, trace)
    if checksum(thin, ranks) != state.facts["behind"]:
        warnings.warn(
            "the hidden states are not those of the run that was interrupted, bit for bit: it had other "
            "threads or processes, another device or other libraries. The result will be as good, but not "
            "identical.",
            StatpruneWarning,
            stacklevel=2,
        )


def checksum(stream: Stream, ranks: Ranks = ALONE) -> int:
    """Of the bits of all hidden states, whatever their order, modulo 2^64."""
    own = sum(int(each.view(BITS[each.element_size()]).sum(dtype=torch.int64)) for each in stream.hidden)
    return sum(from_each(ranks, own)) % 2**64
