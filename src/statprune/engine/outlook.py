"""How much work the stages of a run are, counted before they begin.

Counts are multiply-adds and numbers touched, from shapes alone: which parts of a stage grow with the tokens,
which with the widths, and how a stage's blocks compare. How long any of it takes is no concern of this
module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at, returned_by, shape_of
from statprune.anatomy.sites import Site
from statprune.budget.size import size_of
from statprune.calibration.batches import Batch, samples_in
from statprune.engine.carrier_notes import MOST
from statprune.engine.carriers import noted_at, worthwhile
from statprune.engine.latency import REPEATS, SHARES
from statprune.engine.progress import Stage, Work
from statprune.engine.survey import LEVELS
from statprune.engine.trial import tokens_by_stack
from statprune.linalg.bilinear import ITERATIONS
from statprune.linalg.held_out import DAMPINGS

TOUCHED = 12
"""Numbers that a block reads or writes for each of its hidden and inner values."""

OUTPUTS_TOUCHED = 20
"""Numbers read or written for each output that is compared."""

CALLS, CALLS_EXPERT, CALLS_UNIT = 60, 10, 20
"""Operations of a block for each batch; besides, of each expert; of an elimination for each unit."""

OPENING = 6 * 10**7
"""What making and opening a folder costs, in bytes transferred."""


@dataclass(frozen=True)
class Load:
    """What walks through a model: batches, the tokens of each of its stacks, and how many a sample has."""

    batches: int
    tokens: tuple[int, ...]
    lengths: tuple[float, ...]

    @staticmethod
    def of(batches: Sequence[Batch]) -> "Load":
        """Of these batches."""
        tokens = tokens_by_stack(batches)
        samples = max(1, sum(samples_in(batch) for batch in batches))
        return Load(len(batches), tokens, tuple(each / samples for each in tokens))

    def at(self, anatomy: Anatomy, index: int) -> tuple[int, float]:
        """Tokens, and tokens a sample, that block `index` sees."""
        number = next(n for n, run in enumerate(anatomy.runs) if run.start <= index < run.end)
        number = min(number, len(self.tokens) - 1)
        return self.tokens[number], self.lengths[number]


def ask_ahead(anatomy: Anatomy, load: Load) -> Stage:
    """Asking the dense model for all outputs of `load`."""
    return Stage("ask", tuple(_forward(anatomy, n, block, load) for n, block in enumerate(anatomy.blocks)))


def survey_ahead(model: PreTrainedModel, anatomy: Anatomy, load: Load, probe: Load) -> tuple[Stage, Stage]:
    """A survey of `load`, with `probe` for what is tried out, and the comparison of the outputs after it."""
    blocks, behind = [], 0
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        own = len(LEVELS) * len(sites)
        work = _forward(anatomy, index, block, load)
        work += _forward(anatomy, index, block, probe).times(1 + behind + own)
        for site in sites:
            work += _surveyed(site, block, load.at(anatomy, index)[0])
        blocks.append(work)
        behind += own
    return Stage("survey", tuple(blocks)), compare_ahead(model, probe.tokens[-1], behind)


def compare_ahead(model: PreTrainedModel, tokens: int, models: int) -> Stage:
    """The outputs of `tokens` of so many models, and their divergence."""
    head = model.get_output_embeddings()
    if head is None:
        return Stage("compare", (Work(elements=tokens),))
    outputs, width = head.weight.shape
    one = Work(products=tokens * outputs * width, elements=OUTPUTS_TOUCHED * tokens * outputs)
    return Stage("compare", (one.times(models),))


def score_ahead(model: PreTrainedModel, anatomy: Anatomy, lengths: Sequence[int], batch_tokens: int) -> Stage:
    """Asking the model rows of so many tokens, in batches of so many."""
    tokens = sum(lengths)
    stacks = len(anatomy.runs)
    load = Load(-(-tokens // batch_tokens), (tokens,) * stacks, (tokens / len(lengths),) * stacks)
    work = sum(
        (_forward(anatomy, index, block, load) for index, block in enumerate(anatomy.blocks)),
        compare_ahead(model, tokens, 1).work[0],
    )
    return Stage("evaluate", (work.times(1 / len(lengths)),) * len(lengths))


def refit_ahead(anatomy: Anatomy, load: Load, widths: Mapping[str, float]) -> Stage:
    """A refit with `load` to `widths`, units by site, which need not be whole numbers."""
    narrowed = [site.block for site in anatomy.sites if widths[site.name] < site.units]
    first = min(narrowed, default=len(anatomy.blocks))
    blocks = []
    for index, block in enumerate(anatomy.blocks):
        forward = _forward(anatomy, index, block, load)
        work = forward if index < first else forward.times(2)
        for site in anatomy.sites_of_block(index) if index >= first else ():
            work += forward.times(1 if site.kind == "feed_forward" else 0.4)
            work += _refitted(site, block, *load.at(anatomy, index), widths[site.name])
        blocks.append(work)
    return Stage("refit", tuple(blocks))


def measure_ahead(anatomy: Anatomy, load: Load) -> Stage:
    """The walk of method stat that measures every site."""
    blocks = [
        _walked(anatomy, index, block, load, anatomy.sites_of_block(index))
        for index, block in enumerate(anatomy.blocks)
    ]
    return Stage("measure", tuple(blocks))


def prune_ahead(anatomy: Anatomy, load: Load, sites: Sequence[Site], *, again: bool) -> Stage:
    """Cutting `sites` by method stat; factors of neurons are there, or made `again` on a walk beside."""
    last = max((site.block + 1 for site in sites), default=0)
    blocks = []
    for index, block in enumerate(anatomy.blocks[:last]):
        here = [site for site in sites if site.block == index]
        heads = [site for site in here if site.kind == "attention"]
        neurons = [site for site in here if site.kind == "feed_forward"]
        work = _walked(anatomy, index, block, load, heads)
        if again:
            work += _walked(anatomy, index, block, load, neurons)
        for site in neurons:
            m = _columns(site)
            work += Work(algebra=m**3 / 6 + m * m * _width(site, block)).times(max(1, site.experts))
        blocks.append(work)
    return Stage("prune", tuple(blocks))


def _walked(anatomy: Anatomy, index: int, block: nn.Module, load: Load, sites: Sequence[Site]) -> Work:
    """One pass through a block in which `sites` are factored."""
    tokens = load.at(anatomy, index)[0]
    return sum((_factored(site, block, tokens) for site in sites), _forward(anatomy, index, block, load))


def latency_ahead(anatomy: Anatomy, load: Load) -> Stage:
    """Timing the first block of each shape at several widths, with `load`, of which a third is left."""
    shapes: dict[tuple[tuple[str, int, int], ...], Work] = {}
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        runs = (REPEATS + 1) * len(SHARES) * len(sites) / 3
        key = tuple((site.part, site.units, site.columns) for site in sites)
        shapes.setdefault(key, _forward(anatomy, index, block, load).times(runs))
    return Stage("latency", (sum(shapes.values(), Work()),))


def save_ahead(model: PreTrainedModel) -> Stage:
    """Writing a model, opening it again, and comparing."""
    return Stage("save", (Work(transfer=OPENING + 2.0 * size_of(model).bytes),))


def _forward(anatomy: Anatomy, index: int, block: nn.Module, load: Load) -> Work:
    """One pass of `load` through a block."""
    tokens, length = load.at(anatomy, index)
    sites = anatomy.sites_of_block(index)
    weights = sum(each.numel() for each in block.parameters())
    for site in sites:
        if site.experts:
            weights -= round(site.units * site.parameters_per_unit * (1 - site.active / site.experts))
    inner = sum(site.units * site.columns * max(1, site.active) for site in sites)
    heads = sum(site.units * site.group for site in sites if site.kind == "attention")
    scores = sum(2 * site.units * site.columns for site in sites if site.kind == "attention") * length
    return Work(
        products=tokens * (weights + scores),
        elements=tokens * (TOUCHED * (inner + _width(sites[0], block)) + 3 * heads * length),
        calls=load.batches * (CALLS + CALLS_EXPERT * max(site.experts for site in sites)),
    )


def _width(site: Site, block: nn.Module) -> int:
    """The hidden size, as the site's consumer returns it."""
    return returned_by(module_at(block, site.consumer))


def _columns(site: Site) -> int:
    return site.units * site.columns


def _each(site: Site, tokens: int) -> tuple[int, float]:
    """How many matrices a site has, and the tokens that each of them sees."""
    return max(1, site.experts), tokens / site.sparsity


def _surveyed(site: Site, block: nn.Module, tokens: int) -> Work:
    """A Gram matrix, an elimination, and a fit at each level."""
    m, h = _columns(site), _width(site, block)
    count, rows = _each(site, tokens)
    fits = len(LEVELS) * (m**3 / 12 + m * m * h / 2) + 2 * m * m * h
    own = Work(products=rows * m * m / 2, algebra=fits, elements=4 * rows * m) + _eliminated(site, h)
    return own.times(count)


def _eliminated(site: Site, outputs: int, units: float = 0) -> Work:
    m, kept = _columns(site), units * site.columns
    return Work(algebra=1.2 * m**3 - 0.5 * kept**3 + m * m * outputs, calls=CALLS_UNIT * (site.units - units))


def _refitted(site: Site, block: nn.Module, tokens: int, length: float, units: float) -> Work:
    """Adaptation, choice, fit, and where it is done the carrier's refit."""
    m, h = _columns(site), _width(site, block)
    count, rows = _each(site, tokens)
    kept = units * site.columns
    adapted = min(tokens, max(4096, 16 * h))
    adapting = Work(adapted * 1.5 * h * h, len(DAMPINGS) * 2.2 * h**3, 8 * adapted * h)
    fits = len(DAMPINGS) * (m**3 / 6 + 2 * m * m * h) + 3 * m * m * h
    fitting = Work(rows * m * (m / 2 + h), fits + kept**3 / 3 + 2 * kept * kept * h, rows * (8 * m + 8 * h))
    work = adapting + (fitting + _eliminated(site, h, units)).times(count)
    if site.experts or not worthwhile(block, site, tokens):
        return work
    return work + _carried(site, block, tokens, length, kept)


def _carried(site: Site, block: nn.Module, tokens: int, length: float, kept: float) -> Work:
    """Conjugate gradients on one site's carriers: values, or each producer of a perceptron."""
    path = noted_at(site)
    h = 0 if path is None else shape_of(module_at(block, path))[1]
    outputs = _width(site, block)
    heads = site.units * site.group * kept / _columns(site)
    gated = site.kind == "feed_forward"
    rows = min(tokens, MOST // (2 * site.units if gated else site.units * site.group * h))
    through = min(2 * outputs, kept)
    iteration = Work(rows * kept * (2 * h + through), kept * h * (h + 1), rows * (6 * kept + h))
    around = Work(rows * kept * (2 * h + 2 * outputs + kept / 2), kept**3 / 6 + kept * kept * outputs)
    mixing = Work(elements=rows * (4 * kept + 6 * outputs))
    if not gated:
        mixing += Work(rows * heads * length * (h + site.head_dim), 0, 3 * rows * heads * (h + length))
        iteration += Work(elements=2 * rows * heads * h)
    producers = 2 if gated and site.carrier is not None else 1
    return (iteration.times(ITERATIONS) + around + mixing).times(producers)


def _factored(site: Site, block: nn.Module, tokens: int) -> Work:
    """A Gram matrix with products in float64, its factor, and the consumer's correction."""
    m, h = _columns(site), _width(site, block)
    count, rows = _each(site, tokens)
    return Work(0, rows * m * m / 2 + m**3 + m * m * h, 4 * rows * m).times(count)
