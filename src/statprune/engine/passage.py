"""One block on its way from dense to thin: what its dense self did, and the thin stream in front of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.parts import BLOCK
from statprune.anatomy.producers import module_at
from statprune.anatomy.ranks import Ranks, before, merged
from statprune.anatomy.shelf import Room
from statprune.anatomy.sites import Site
from statprune.calibration.batches import Batch
from statprune.calibration.reading import Reader, real_rows
from statprune.calibration.routing import hidden_of
from statprune.calibration.share import Share, exact, share
from statprune.calibration.stream import Seen, Stream, advance, until
from statprune.engine.carrier_notes import Notes
from statprune.engine.carriers import Observer, worthwhile
from statprune.engine.divergence import every_row, first_of, held_out
from statprune.engine.row_weights import row_weights_of
from statprune.linalg.gram import moment_dtype
from statprune.linalg.held_out import Compensation
from statprune.linalg.moments import Halves, Moments, MomentSum, in_two

MakeGood = Callable[[Moments, Moments], Compensation]
"""Decides how far to follow what was lost: moments of the rows to fit, and of those held out."""


@dataclass(frozen=True, eq=False)
class Data:
    """This process's part of the calibration data, and which of its samples are held out, (count,) int64.

    First come the samples as they are, of which `given` is this process's part, then those that fits see
    besides, none of which is held out or made of samples that are (engine/few_tokens.py). `adapted` are those
    that producers are adapted on where that takes so many tokens; with `exact` tokens are few, and products
    of few columns are formed in float64.
    """

    batches: Sequence[Batch]
    held: list[Tensor]
    adapted: Callable[[int], list[Tensor]]
    given: Share
    exact: bool

    @staticmethod
    def of(batches: Sequence[Batch], ranks: Ranks, added: Sequence[Batch] = ()) -> "Data":
        """The part of `batches`, and of those `added` to fit on; all where one process is alone."""
        every = [*batches, *added]
        own = share(every, ranks)

        def adapted(tokens: int) -> list[Tensor]:
            rows = first_of(every, every_row(every), tokens)
            last = next((number for number, each in enumerate(rows) if not len(each)), len(rows))
            return own.rows([each if number < last else each[:0] for number, each in enumerate(rows)])

        held = own.rows([*held_out(batches), *(torch.arange(0) for _ in added)])
        given = Share(tuple(piece for piece in own.pieces if piece.batch < len(batches)))
        return Data(own.of(every), held, adapted, given, exact(every))

    def held_tokens(self, number: int, real: Tensor) -> Tensor:
        """Which of the real tokens of batch `number` belong to samples held out: (tokens,) bool."""
        mask = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        mask[self.held[number]] = True
        return mask[:, None].expand_as(real)[real]


@dataclass
class Dense:
    """What the dense stream did at one block, one entry a batch, (tokens, width), padding removed."""

    inputs: dict[str, Room] = field(default_factory=dict)
    outputs: dict[str, Room] = field(default_factory=dict)


def observed(anatomy: Anatomy, dense: Stream, block: nn.Module, index: int) -> Dense:
    """Advance the dense stream by one block, noting what its producers and consumers read and return."""
    seen, sites, room = Dense(), anatomy.sites_of_block(index), anatomy.shelf.room
    residuals = {path for site in sites for path in site.residual if path != BLOCK}
    inputs = {site.producers[0].path for site in sites} | residuals
    for path in inputs:
        seen.inputs[path] = room()
    for site in sites:
        seen.outputs[site.consumer] = room()
    dense.stand_before(index)
    seen.inputs[BLOCK] = room()
    seen.inputs[BLOCK].extend(rows_of(dense))
    advance(
        dense,
        block,
        index,
        {path: _noting(seen.inputs[path]) for path in inputs},
        {path: notes.append for path, notes in seen.outputs.items()},
        whole=True,
    )
    return seen


def _noting(notes: Room) -> Reader:
    return lambda read: notes.append(hidden_of(read))


def rows_of(stream: Stream) -> Iterator[Tensor]:
    """The hidden states of real tokens, (tokens, width), batch by batch."""
    return (real_rows(hidden, real) for hidden, real in zip(stream.hidden, stream.real, strict=True))


@dataclass(frozen=True, eq=False)
class Passage:
    """One block on its way from dense to thin: what its dense self did, and the thin stream before it."""

    anatomy: Anatomy
    block: nn.Module
    index: int
    thin: Stream
    dense: Dense
    data: Data

    @property
    def ranks(self) -> Ranks:
        """The processes that share the run."""
        return self.anatomy.ranks

    @property
    def eps(self) -> float:
        """Of the dtype in which the model computes."""
        return float(torch.finfo(self.thin.hidden[0].dtype).eps)

    def moments(self, site: Site, *, noting: bool) -> tuple[Halves | None, Notes | None]:
        """Of what the consumer reads in the thin stream, and of what it should return there.

        That is the dense output, and what the dense hidden state that it is added to has more than the thin
        one. Tokens are weighted. Besides, what its carrier is fitted on, if that is asked for and
        worthwhile.
        """
        outputs, consumer = self.dense.outputs[site.consumer], module_at(self.block, site.consumer)
        bias = consumer.bias
        pair = self.pair(site.units * site.columns, outputs[0].shape[1], bias is not None)
        behind, tokens = before(self.ranks, sum(int(real.sum()) for real in self.thin.real))
        wanted = noting and worthwhile(self.block, site, tokens)
        observer = Observer(self.block, site, behind, exact=self.data.exact) if wanted else None
        with nullcontext() if observer is None else observer.watching():
            for seen, target, row_weights in self.targets(site):
                Z = seen[site.consumer]
                self.add(pair, seen, (Z, target if bias is None else target - bias), row_weights)
                if observer is not None:
                    observer.take(Z, target, self.thin.real[seen.position][seen.rows], row_weights)
        return self.in_two(pair), None if observer is None else observer.notes

    def in_two(self, pair: tuple[MomentSum, MomentSum]) -> Halves | None:
        """Moments of rows to fit and of those held out, over all processes; None but at the first."""
        fit, held = (merged(self.ranks, each) for each in pair)
        return None if fit is None or held is None else in_two(fit, held)

    def targets(self, site: Site) -> Iterator[tuple[Seen, Tensor, Tensor]]:
        """Batch by batch what is read in the thin stream, what the consumer should return there, and weights.

        The weights (tokens,) are those of the tokens' squared errors: engine/row_weights.py.
        """
        also = [path for path in site.residual if path != BLOCK]
        for seen in until(self.thin, self.block, self.index, site.consumer, also):
            number, rows = seen.position, seen.rows
            whole = target = self.dense.outputs[site.consumer][number][seen.tokens]
            for path in site.residual:
                here = seen[path] if path != BLOCK else self._in_front(number, rows)
                dense = self.dense.inputs[path][number][seen.tokens]
                whole, target = whole + dense, target + (dense - here)
            yield seen, target, row_weights_of(site, whole)

    def _in_front(self, number: int, rows: slice) -> Tensor:
        return real_rows(self.thin.hidden[number][rows], self.thin.real[number][rows])

    def pair(self, inputs: int, outputs: int, constant: bool) -> tuple[MomentSum, MomentSum]:
        """Empty sums for the rows to fit and those held out."""
        stream = self.thin.hidden[0]
        device, products = stream.device, moment_dtype(inputs, stream.dtype, few=self.data.exact)
        fit, held = (
            MomentSum(inputs, outputs, constant=constant, device=device, products=products) for _ in range(2)
        )
        return fit, held

    def add(
        self,
        pair: tuple[MomentSum, MomentSum],
        seen: Seen,
        rows: tuple[Tensor, Tensor],
        row_weights: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> None:
        """Add `rows`, Z and Y of what was seen, to the two: the first, or those of `tokens` (rows,) int64."""
        Z, Y = rows
        held = self.data.held_tokens(seen.position, self.thin.real[seen.position])[seen.tokens]
        held = held[: len(Z)] if tokens is None else held[tokens]
        for sums, these in zip(pair, (~held, held), strict=True):
            sums.update(Z[these], Y[these], None if row_weights is None else row_weights[these])
