"""Hidden states in front of a block, and their way through it.

The calibration data walks through the network one block at a time: only the hidden states in front of the
current block are held, and, while that block runs, the activations of one batch at the places that are read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.sites import module_at
from statprune.errors import NonFiniteError

Batch = Mapping[str, Tensor]
Reader = Callable[[Tensor], None]
"""Takes what a module reads, or returns, for one batch, (tokens, columns), padding removed."""


@dataclass
class Stream:
    """The calibration data on its way: one entry a batch in every list.

    `hidden` (batch, length, width) is replaced by each advance. `real` (batch, length) bool tells tokens from
    padding. `calls` holds, block by block, the other arguments with which the model calls its blocks.
    """

    hidden: list[Tensor]
    real: list[Tensor]
    calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]]

    def fork(self) -> "Stream":
        """Another stream that stands where this one does; advancing either leaves the other there."""
        return Stream(list(self.hidden), self.real, self.calls)


@torch.no_grad()
def before_first_block(model: PreTrainedModel, blocks: nn.ModuleList, batches: Sequence[Batch]) -> Stream:
    """Run the model up to its first block on every batch, and note how it would call each block.

    The model's own forward runs with every block replaced by one that hands its input on, so embeddings,
    attention masks and rotary tables are the model's, computed once a batch.

    Raises:
        NonFiniteError: the embeddings hold a NaN or an infinity.
    """
    device = next(model.parameters()).device
    stream = Stream([], [], [])
    for batch in batches:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        first: list[Tensor] = []
        with _handing_on(blocks, calls, first):
            model.base_model(**{name: value.to(device) for name, value in batch.items()}, **_no_cache(model))
        _require_finite(first[0], "in front of blocks.0")
        stream.hidden.append(first[0])
        stream.real.append(batch["attention_mask"].to(device).bool())
        stream.calls.append(calls)
    return stream


@torch.no_grad()
def advance(
    stream: Stream,
    block: nn.Module,
    index: int,
    readers: Mapping[str, Reader] | None = None,
    writers: Mapping[str, Reader] | None = None,
) -> None:
    """Move the stream through block `index`.

    `readers` are given what the modules at their paths read, `writers` what those at theirs return.

    Raises:
        NonFiniteError: the block's output holds a NaN or an infinity; names the block.
    """
    for position, (hidden, real) in enumerate(zip(stream.hidden, stream.real, strict=True)):
        args, kwargs = stream.calls[position][index]
        with _reading(block, readers or {}, real, writers or {}):
            output = block(hidden, *args, **kwargs)
        output = output[0] if isinstance(output, tuple) else output
        _require_finite(output, f"behind blocks.{index}")
        stream.hidden[position] = output


@torch.no_grad()
def behind_last_block(model: PreTrainedModel, blocks: nn.ModuleList, hidden: Tensor, batch: Batch) -> Any:
    """What the whole model returns for `batch` if its last block returns `hidden` (rows, length, width).

    Final norm and head are the model's own, whatever its task; its blocks do not run.
    """
    device = hidden.device
    with _handing_on(blocks, [], [], hidden):
        return model(
            **{name: value.to(device) for name, value in batch.items()}, **_no_cache(model), return_dict=True
        )


def real_rows(Z: Tensor, real: Tensor) -> Tensor:
    """The rows of Z (batch, length, columns) that are tokens; `real` (batch, length) bool tells them."""
    return Z.reshape(-1, Z.shape[-1])[real.reshape(-1)]


class _Enough(Exception):  # noqa: N818 - not an error: a block has run as far as was asked
    """Ends a block's forward."""


@torch.no_grad()
def until(
    stream: Stream, block: nn.Module, index: int, path: str, also: Sequence[str] = ()
) -> Iterator[dict[str, Tensor]]:
    """Run block `index` on each batch as far as the module at `path`; the stream stays where it is.

    Yields, batch by batch, what the modules at `path` and `also` read, (tokens, width), padding removed.

    Raises:
        ValueError: the block ends before it gets to `path`.
    """
    for position, (hidden, real) in enumerate(zip(stream.hidden, stream.real, strict=True)):
        args, kwargs = stream.calls[position][index]
        seen: dict[str, Tensor] = {}

        def note(name: str, seen: dict[str, Tensor] = seen) -> Reader:
            def read(Z: Tensor) -> None:
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


@contextmanager
def _handing_on(
    blocks: nn.ModuleList,
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]],
    first: list[Tensor],
    instead: Tensor | None = None,
) -> Iterator[None]:
    def hand_on(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not first:
            first.append(hidden)
        calls.append((args, kwargs))
        return hidden if instead is None else instead

    with ExitStack() as stack:
        for block in blocks:
            own = block.__dict__.get("forward")  # a hook that someone else has put there
            block.forward = hand_on
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
) -> Iterator[None]:
    with ExitStack() as stack:
        for path, reader in readers.items():

            def hook(_: nn.Module, inputs: tuple[Tensor, ...], reader: Reader = reader) -> None:
                reader(real_rows(inputs[0], real))

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
