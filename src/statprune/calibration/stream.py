"""Hidden states in front of a block, and their way through it.

The calibration data walks through the network one block at a time: only the hidden states in front of the
current block are held, and, while that block runs, the activations of one batch at the places that are read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy, Run
from statprune.anatomy.producers import module_at
from statprune.anatomy.shelf import Room
from statprune.calibration.batches import Batch, inputs_of, real_of
from statprune.calibration.routing import read_by
from statprune.errors import NonFiniteError

Reader = Callable[[Any], None]
"""Takes what a module reads, or returns, for one batch, (tokens, columns), padding removed; of experts what
they read is a `Routed`."""


@dataclass
class Stream:
    """The calibration data on its way through a stack: one entry a batch in every list.

    `hidden` (batch, length, width) is replaced by each advance. `real` (batch, length) bool tells tokens from
    padding. `calls` holds, block by block from number `start` on, the other arguments with which the model
    calls its blocks. `enter` begins the next stack, if there is one.
    """

    hidden: Room
    real: list[Tensor]
    calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]]
    start: int = 0
    enter: "Callable[[Room], Stream] | None" = None

    def fork(self) -> "Stream":
        """Another stream that stands where this one does; advancing either leaves the other there."""
        return Stream(self.hidden.copy(), self.real, self.calls, self.start, self.enter)

    def stand_before(self, index: int) -> None:
        """Begin the next stack, if block `index` is its first."""
        if self.calls and index == self.start + len(self.calls[0]) and self.enter is not None:
            vars(self).update(vars(self.enter(self.hidden)))

    def call(self, position: int, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The other arguments with which block `index` is called for the batch at `position`."""
        return self.calls[position][index - self.start]


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
) -> Stream:
    """The stream in front of stack `number`; `before` is what each earlier stack returned, batch by batch."""
    run = anatomy.runs[number]
    stream = Stream(anatomy.shelf.room(), [], [], run.start)
    for position, batch in enumerate(batches):
        handing = [_Handing(each) for each in anatomy.runs]
        for each, returned in zip(handing, before, strict=False):
            each.instead = returned[position]
        with _handing_on(anatomy, handing):
            model.base_model(**inputs_of(model, batch), **_no_cache(model))
        here = handing[number]
        hidden = here.first[0]
        _require_finite(hidden, f"in front of {run.stack.name}.0")
        stream.hidden.append(hidden)
        stream.real.append(real_of(batch, number, hidden))
        stream.calls.append(here.calls)
    if number + 1 < len(anatomy.runs):
        stream.enter = lambda hidden: _before_stack(
            model, anatomy, batches, number + 1, [*before, hidden.copy()]
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
) -> None:
    """Move the stream through block `index`.

    `readers` are given what the modules at their paths read, `writers` what those at theirs return. With
    `borrowed` readers must be done with it when they return: it may be the model's own tensor, not a copy.

    Raises:
        NonFiniteError: the block's output holds a NaN or an infinity; names the block.
    """
    stream.stand_before(index)
    for position, (hidden, real) in enumerate(zip(stream.hidden, stream.real, strict=True)):
        args, kwargs = stream.call(position, index)
        with _reading(block, readers or {}, real, writers or {}, borrowed=borrowed):
            output = block(hidden, *args, **kwargs)
        output = output[0] if isinstance(output, tuple) else output
        _require_finite(output, f"behind blocks.{index}")
        stream.hidden[position] = output


@torch.no_grad()
def behind_last_block(model: PreTrainedModel, anatomy: Anatomy, hidden: Tensor, batch: Batch) -> Any:
    """What the whole model returns for `batch` if its last block returns `hidden` (rows, length, width).

    Final norm and head are the model's own, whatever its task; its blocks do not run.
    """
    handing = [_Handing(run) for run in anatomy.runs]
    handing[-1].instead = hidden
    with _handing_on(anatomy, handing):
        return model(**inputs_of(model, batch), **_no_cache(model), return_dict=True)


def real_rows(Z: Tensor, real: Tensor) -> Tensor:
    """The rows of Z (batch, length, columns) that are tokens; `real` (batch, length) bool tells them."""
    return Z.reshape(-1, Z.shape[-1])[real.reshape(-1)]


class _Enough(Exception):  # noqa: N818 - not an error: a block has run as far as was asked
    """Ends a block's forward."""


@torch.no_grad()
def until(
    stream: Stream, block: nn.Module, index: int, path: str, also: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Run block `index` on each batch as far as the module at `path`; the stream stays where it is.

    Yields, batch by batch, what the modules at `path` and `also` read, (tokens, width), padding removed.

    Raises:
        ValueError: the block ends before it gets to `path`.
    """
    stream.stand_before(index)
    for position, (hidden, real) in enumerate(zip(stream.hidden, stream.real, strict=True)):
        args, kwargs = stream.call(position, index)
        seen: dict[str, Any] = {}

        def note(name: str, seen: dict[str, Any] = seen) -> Reader:
            def read(Z: Any) -> None:
                seen[name] = Z
                if name == path:
                    raise _Enough

            return read

        try:
            # The last one first: where several paths are one module, all of them are noted.
            with _reading(block, {name: note(name) for name in (*also, path)}, real):
                block(hidden, *args, **kwargs)
        except _Enough:
            yield seen
        else:
            raise ValueError(f"blocks.{index} does not run the module at {path}.")


def _no_cache(model: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if getattr(model.config, "use_cache", None) is not None else {}


@dataclass
class _Handing:
    """Blocks of one stack that hand their input on, or return `instead`; what they were called with."""

    run: Run
    instead: Tensor | None = None
    first: list[Tensor] = field(default_factory=list)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    extras: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.extras = (None,) * self.run.stack.extras

    @property
    def runs_first(self) -> bool:
        """Whether the first block runs, for what it hands on besides."""
        return self.run.stack.carried and self.instead is None

    def forward_of(self, block: nn.Module) -> Callable[..., Any]:
        """What stands in for the forward of `block`."""
        own = block.forward
        runs = self.runs_first and block is self.run.blocks[0]

        def hand_on(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self.first:
                self.first.append(hidden)
            self.calls.append((args, kwargs))
            returned = hidden if self.instead is None else self.instead
            if runs:
                self.extras = own(hidden, *args, **kwargs)[1:]
            return (returned, *self.extras) if self.extras else returned

        return hand_on


@contextmanager
def _handing_on(anatomy: Anatomy, handing: Sequence[_Handing]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in handing:
            if each.runs_first:
                stack.enter_context(anatomy.shelf.taken(each.run.start))
            for block in each.run.blocks:
                own = block.__dict__.get("forward")  # a hook that someone else has put there
                block.forward = each.forward_of(block)
                if own is None:
                    stack.callback(block.__dict__.pop, "forward")
                else:
                    stack.callback(setattr, block, "forward", own)
        yield


@contextmanager
def _reading(
    block: nn.Module,
    readers: Mapping[str, Reader],
    real: Tensor,
    writers: Mapping[str, Reader] = MappingProxyType({}),
    *,
    borrowed: bool = False,
) -> Iterator[None]:
    with ExitStack() as stack:
        for path, reader in readers.items():

            def hook(_: nn.Module, inputs: tuple[Tensor, ...], reader: Reader = reader) -> None:
                reader(read_by(inputs, real, borrowed=borrowed))

            stack.callback(module_at(block, path).register_forward_pre_hook(hook).remove)
        for path, writer in writers.items():

            def after(_: nn.Module, __: Any, output: Tensor, writer: Reader = writer) -> None:
                writer(real_rows(output, real))

            stack.callback(module_at(block, path).register_forward_hook(after).remove)
        yield


def _require_finite(hidden: Tensor, place: str) -> None:
    wrong = 0 if bool(torch.isfinite(hidden.sum())) else int((~torch.isfinite(hidden)).sum())
    if wrong:
        raise NonFiniteError(
            f"{place}: {wrong} of {hidden.numel()} hidden states are NaN or infinite in {hidden.dtype}. "
            f"Nothing was written. Try --dtype float32, and check the weights of the blocks before."
        )
