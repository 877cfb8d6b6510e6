"""Hidden states in front of a block, and their way through it.

The calibration data walks through the network one block at a time: only the hidden states in front of the
current block are held, and, while that block runs, the activations of one batch at the places that are read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.shelf import Room
from statprune.calibration.batches import Batch, inputs_of, real_of, samples_in
from statprune.calibration.halving import Pace, in_halves
from statprune.calibration.handing import Calls, Handing, handing_on
from statprune.calibration.reading import Once, Reader, reading
from statprune.errors import NonFiniteError


@dataclass
class Stream:
    """The calibration data on its way through a stack: one entry a batch in every list.

    `hidden` (batch, length, width) is replaced by each advance. `real` (batch, length) bool tells tokens from
    padding. `calls` holds, for blocks from number `start` on, the other arguments with which the model
    calls them, by the first and last of the rows that pass at once; `front` gives them for other rows of the
    batch at a position. `pace` says how many rows pass at once. `enter` begins the next stack, if there is
    one.
    """

    hidden: Room
    real: list[Tensor]
    calls: list[dict[tuple[int, int], Calls]]
    front: "Callable[[int, slice], tuple[Tensor, Calls]]"
    pace: Pace
    start: int = 0
    enter: "Callable[[Room], Stream] | None" = None

    def fork(self) -> "Stream":
        """Another stream that stands where this one does; advancing either leaves the other there."""
        return replace(self, hidden=self.hidden.copy())

    def stand_before(self, index: int) -> None:
        """Begin the next stack, if block `index` is its first."""
        blocks = len(next(iter(self.calls[0].values()))) if self.calls else None
        if blocks is not None and index == self.start + blocks and self.enter is not None:
            vars(self).update(vars(self.enter(self.hidden)))

    def call(self, position: int, rows: slice, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The other arguments of block `index` for these rows of the batch at `position`."""
        known = self.calls[position]
        if (rows.start, rows.stop) not in known:
            for start, stop in list(known):
                if start < rows.stop and rows.start < stop:
                    del known[start, stop]
            known[rows.start, rows.stop] = self.front(position, rows)[1]
        return known[rows.start, rows.stop][index - self.start]


def before_first_block(model: PreTrainedModel, anatomy: Anatomy, batches: Sequence[Batch]) -> Stream:
    """Run the model up to its first block on every batch, and note how it would call each block.

    The model's own forward runs with every block replaced by one that hands its input on, so embeddings,
    attention masks and rotary tables are the model's, computed once a batch. A later stack begins when the
    data has passed the earlier ones: the model runs once more, they hand on what their last blocks returned.

    Raises:
        NonFiniteError: the embeddings hold a NaN or an infinity.
    """
    return _before_stack(model, anatomy, batches, 0, [])


@torch.no_grad()
def _before_stack(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    number: int,
    before: Sequence[Sequence[Tensor]],
    pace: Pace | None = None,
) -> Stream:
    """The stream in front of stack `number`; `before` is what each earlier stack returned, batch by batch."""
    run = anatomy.runs[number]

    def front(position: int, rows: slice) -> tuple[Tensor, Calls]:
        batch = {name: value[rows] for name, value in batches[position].items()}
        handing = [Handing(each) for each in anatomy.runs]
        for each, returned in zip(handing, before, strict=False):
            each.instead = returned[position][rows]
        with handing_on(anatomy, handing), torch.no_grad():
            model.base_model(**inputs_of(model, batch), **_no_cache(model))
        return handing[number].first[0], handing[number].calls

    place = f"in front of {run.stack.name}.0"
    stream = Stream(anatomy.shelf.room(), [], [], front, Pace() if pace is None else pace, run.start)
    for position, batch in enumerate(batches):
        pieces = list(in_halves(samples_in(batch), partial(front, position), place, stream.pace))
        hidden = _joined([hidden for _, (hidden, _) in pieces])
        _require_finite(hidden, place)
        stream.hidden.append(hidden)
        stream.real.append(real_of(batch, number, hidden))
        stream.calls.append({(rows.start, rows.stop): calls for rows, (_, calls) in pieces})
    if number + 1 < len(anatomy.runs):
        stream.enter = lambda hidden: _before_stack(
            model, anatomy, batches, number + 1, [*before, hidden.copy()], stream.pace
        )
    return stream


@torch.no_grad()
def advance(
    stream: Stream,
    block: nn.Module,
    index: int,
    readers: Mapping[str, Reader] | None = None,
    writers: Mapping[str, Reader] | None = None,
    *,
    borrowed: bool = False,
    whole: bool = False,
) -> None:
    """Move the stream through block `index`.

    `readers` are given what the modules at their paths read, `writers` what those at theirs return: of one
    batch after the other, or, where memory is short, of pieces of them, unless `whole` ones are wanted. With
    `borrowed` readers must be done with it when they return: it may be the model's own tensor, not a copy.

    Raises:
        NonFiniteError: the block's output holds a NaN or an infinity; names the block.
        ShortOfMemoryError: a single row does not pass.
    """
    stream.stand_before(index)
    for position, hidden in enumerate(stream.hidden):
        once = Once(whole=whole)
        here = {path: once.reader(f"in {path}", reader) for path, reader in (readers or {}).items()}
        there = {path: once.reader(f"out {path}", writer) for path, writer in (writers or {}).items()}
        watching = partial(reading, block, here, writers=there, borrowed=borrowed)
        run = partial(_passed, stream, position, hidden, block, index, once, watching)
        output = _joined([each for _, each in in_halves(len(hidden), run, f"blocks.{index}", stream.pace)])
        once.hand_over()
        _require_finite(output, f"behind blocks.{index}")
        stream.hidden[position] = output


def _passed(  # noqa: PLR0913, PLR0917 - all but the last are settled for a batch
    stream: Stream,
    position: int,
    hidden: Tensor,
    block: nn.Module,
    index: int,
    once: Once,
    watching: Callable[..., AbstractContextManager[None]],
    rows: slice,
) -> Tensor:
    """What block `index` returns for these rows of the batch at `position`."""
    args, kwargs = stream.call(position, rows, index)
    once.passing(rows)
    with watching(real=stream.real[position][rows]):
        output = block(hidden[rows], *args, **kwargs)
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


@torch.no_grad()
def behind_last_block(model: PreTrainedModel, anatomy: Anatomy, hidden: Tensor, batch: Batch) -> Any:
    """What the whole model returns for `batch` if its last block returns `hidden` (rows, length, width).

    Final norm and head are the model's own, whatever its task; its blocks do not run.
    """
    handing = [Handing(run) for run in anatomy.runs]
    handing[-1].instead = hidden
    with handing_on(anatomy, handing):
        return model(**inputs_of(model, batch), **_no_cache(model), return_dict=True)


class _Enough(Exception):  # noqa: N818 - not an error: a block has run as far as was asked
    """Ends a block's forward."""


class Seen(dict[str, Any]):
    """What modules read, by path, of `rows` of the batch at `position`; of its real tokens, of `tokens`."""

    def __init__(self, position: int, rows: slice, tokens: slice) -> None:
        super().__init__()
        self.position, self.rows, self.tokens = position, rows, tokens


@torch.no_grad()
def until(
    stream: Stream,
    block: nn.Module,
    index: int,
    path: str,
    also: Sequence[str] = (),
    batches: int | None = None,
) -> Iterator[Seen]:
    """Run block `index` on each batch, or the first `batches`, as far as the module at `path`; nothing moves.

    Yields, batch by batch, what the modules at `path` and `also` read, (tokens, width), padding removed;
    where memory is short, piece by piece.

    Raises:
        ValueError: the block ends before it gets to `path`.
        ShortOfMemoryError: a single row does not pass.
    """
    stream.stand_before(index)
    for position, hidden in islice(enumerate(stream.hidden), batches):
        run = partial(_seen, stream, position, hidden, block, index, (*also, path))
        for _, seen in in_halves(len(hidden), run, f"blocks.{index}", stream.pace):
            yield seen


def _seen(
    stream: Stream,
    position: int,
    hidden: Tensor,
    block: nn.Module,
    index: int,
    paths: Sequence[str],
    rows: slice,
) -> Seen:
    """What modules at `paths` read of these rows of the batch at `position`; the last one ends it."""
    args, kwargs = stream.call(position, rows, index)
    real = stream.real[position]
    seen = Seen(position, rows, _tokens(real, rows))

    def note(name: str) -> Reader:
        def read(Z: Any) -> None:
            seen[name] = Z
            if name == paths[-1]:
                raise _Enough

        return read

    try:
        # The last one last: where several paths are one module, all of them are noted.
        with reading(block, {name: note(name) for name in paths}, real[rows]):
            block(hidden[rows], *args, **kwargs)
    except _Enough:
        return seen
    raise ValueError(f"blocks.{index} does not run the module at {paths[-1]}.")


def _tokens(real: Tensor, rows: slice) -> slice:
    """Which of the real tokens of a batch those of these rows are."""
    if rows.stop - rows.start == len(real):
        return slice(None)
    before = int(real[: rows.start].sum())
    return slice(before, before + int(real[rows].sum()))


def _no_cache(model: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if getattr(model.config, "use_cache", None) is not None else {}


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def _require_finite(hidden: Tensor, place: str) -> None:
    wrong = 0 if bool(torch.isfinite(hidden.sum())) else int((~torch.isfinite(hidden)).sum())
    if wrong:
        raise NonFiniteError(
            f"{place}: {wrong} of {hidden.numel()} hidden states are NaN or infinite in {hidden.dtype}. "
            f"Nothing was written. Try --dtype float32, and check the weights of the blocks before."
        )
