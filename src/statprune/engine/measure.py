"""What one site's activations say: its factor, and the curve that the budget reads off it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.ranks import before, merged
from statprune.anatomy.sites import Site
from statprune.budget.curves import Curve
from statprune.calibration.reading import Reader
from statprune.calibration.stream import Stream, advance
from statprune.engine.experts import ExpertFactors, ExpertSums
from statprune.errors import NonFiniteError, NumericalError
from statprune.linalg.accumulator import Accumulator
from statprune.linalg.factor import Factor
from statprune.linalg.sketch import CountSketch, GaussianSketch
from statprune.surgery.linear import weight_of

MakeAccumulator = Callable[[int], Accumulator]
"""columns -> an empty accumulator for that many."""


def through_block(
    stream: Stream, block: nn.Module, index: int, sites: Iterable[Site], make: MakeAccumulator
) -> dict[str, Accumulator | ExpertSums]:
    """Advance `stream` by one block, accumulating what the consumers of `sites` read.

    Raises:
        NonFiniteError: an activation or a hidden state is NaN or infinite; names the place.
    """
    seen: dict[str, Any] = {
        site.name: ExpertSums(site, block, [make(site.units) for _ in range(site.experts)])
        if site.experts
        else make(site.units * site.columns)
        for site in sites
    }
    sums = {site.consumer: naming(seen[site.name].update, site) for site in sites}
    advance(stream, block, index, sums, borrowed=True)
    return seen


def sums_through(
    anatomy: Anatomy,
    stream: Stream,
    block: nn.Module,
    index: int,
    sites: Sequence[Site],
    make: MakeAccumulator,
) -> dict[str, Accumulator | ExpertSums]:
    """Advance `stream` by one block; of `sites` those that this process decides about, over all processes.

    Raises:
        NonFiniteError: as for `through_block`.
    """
    ranks = anatomy.ranks
    stream.stand_before(index)
    behind, _ = before(ranks, sum(int(real.sum()) for real in stream.real)) if ranks.size > 1 else (0, 0)

    def placed(columns: int) -> Accumulator:
        made = make(columns)
        if behind and isinstance(made, GaussianSketch | CountSketch):
            made.skip(behind)
        return made

    seen, found = through_block(stream, block, index, sites, placed), {}
    for site in sites:
        each, owner = seen.pop(site.name), anatomy.owner_of(site)
        whole: Accumulator | ExpertSums | None = each
        if isinstance(each, ExpertSums):
            each.sums = [cast(Accumulator, merged(ranks, own, owner)) for own in each.sums]
        else:
            whole = merged(ranks, each, owner)
        if whole is not None and owner == ranks.rank:
            found[site.name] = whole
    return found


def factor_of(site: Site, block: nn.Module, seen: Accumulator | ExpertSums) -> Factor | ExpertFactors:
    """The factor of `site`: neurons scaled by the consumer's column norms, heads in whole units.

    STAT, sections 2 and 3.
    """
    with at_site(site):
        if isinstance(seen, ExpertSums):
            return seen.factor()
        if site.kind == "attention":
            return seen.factor(unit=site.columns)
        return seen.factor(scale=consumer_weight(site, block).norm(dim=0))


def consumer_weight(site: Site, block: nn.Module) -> Tensor:
    """The consumer's weight, (out, units * columns), in float64; of experts (experts, out, units)."""
    return weight_of(module_at(block, site.consumer)).double()


def curve_of(site: Site, factor: Factor | ExpertFactors, weight: Tensor) -> Curve:
    """The error curve of `site` from its `factor` and its consumer's `weight` (out, units * columns)."""
    with at_site(site):
        output = factor.errors(weight).double().cpu()
        trailing = output if site.kind == "attention" else factor.errors().double().cpu()
    steps = output[:-1] if site.kind == "attention" else factor.pivot_norms().double().cpu()
    return Curve(output=output, trailing=trailing, steps=steps)


def naming(update: Reader, site: Site) -> Reader:
    """A reader that hands on what the site's consumer reads; an error names the site."""

    def read(Z: Any) -> None:
        with at_site(site):
            update(Z)

    return read


@contextmanager
def at_site(site: Site) -> Iterator[None]:
    """An error of numbers that is raised inside names the site."""
    try:
        yield
    except (NonFiniteError, NumericalError) as error:
        if getattr(error, "told", False) or str(error).startswith(site.name):
            raise
        raise type(error)(f"{site.name}, read by {site.consumer}: {error} Nothing was written.") from error
