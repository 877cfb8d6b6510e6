"""One process changes a site; all others take over what came of it, bit for bit."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from statprune.anatomy.ranks import Ranks
from statprune.anatomy.shelf import State
from statprune.anatomy.sites import Site
from statprune.engine.journal import mark, narrow_again, parameters_of, recall_sites, said_since
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
        since = mark(trace)
        result = change()
        state = State(dict(parameters_of(block, [site])), said_since(trace, since))
        ranks.same((state, result), owner)
        return result
    told: tuple[State, T] = ranks.same(None, owner)
    state, result = told
    narrow_again(block, [site], state)
    recall_sites(state, trace)
    return result
