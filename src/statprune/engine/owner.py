"""One process changes a site; all others take over what came of it, bit for bit."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from torch import nn

from statprune.anatomy.ranks import Ranks
from statprune.anatomy.shelf import State
from statprune.anatomy.sites import Site
from statprune.engine.journal import mark, narrow_again, recall_sites
from statprune.engine.trace import Trace

T = TypeVar("T")


def by_owner(
    ranks: Ranks, owner: int, block: nn.Module, site: Site, trace: Trace, change: Callable[[], T]
) -> T:
    """What `change` returns at the owner, which alone calls it.

    It may cut `site`, and give its producers and its consumer other weights; what it adds to the trace, and
    what it returns, is the same everywhere.
    """
    if ranks.size == 1:
        return change()
    if ranks.rank == owner:
        sites, said = mark(trace)
        result = change()
        paths = {site.consumer, *(each.path for each in site.producers)}
        weights = {
            name: value for name, value in block.named_parameters() if name.rpartition(".")[0] in paths
        }
        facts = {
            "sites": [asdict(each) for each in trace.sites[sites:]],
            "warnings": trace.warnings[said:],
        }
        ranks.same((State(weights, facts), result), owner)
        return result
    told: tuple[State, T] = ranks.same(None, owner)
    state, result = told
    narrow_again(block, [site], state)
    recall_sites(state, trace)
    return result
