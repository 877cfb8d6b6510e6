"""Hidden states in front of a block, and their way through it.

The calibration data walks through the network one block at a time: only the hidden states in front of the
current block are held, and, while that block runs, the activations of one batch at the places that are read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.sites import module_at
from statprune.errors import NonFiniteError

Batch = Mapping[str, Tensor]
Reader = Callable[[Tensor], None]
"""Takes what a consumer reads for one batch, (tokens, columns), padding removed."""


@dataclass
class Stream:
    """The calibration data on its way: one entry a batch in every list.

    `hidden` (batch, length, width) is replaced by each advance. `real` (batch, length) bool tells tokens from
    padding. `calls` holds, block by block, the other arguments with which the model calls its blocks.
    """

    hidden: list[Tensor]
    real: list[Tensor]
    calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]]


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
    stream: Stream, block: nn.Module, index: int, readers: Mapping[str, Reader] | None = None
) -> None:
    """Move the stream through block `index`; `readers` are given what the consumers at their paths read.

    Raises:
        NonFiniteError: the block's output holds a NaN or an infinity; names the block.
    """
    for position, (hidden, real) in enumerate(zip(stream.hidden, stream.real, strict=True)):
        args, kwargs = stream.calls[position][index]
        with _reading(block, readers or {}, real):
            output = block(hidden, *args, **kwargs)
        output = output[0] if isinstance(output, tuple) else output
        _require_finite(output, f"behind blocks.{index}")
        stream.hidden[position] = output


def _no_cache(model: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if getattr(model.config, "use_cache", None) is not None else {}


@contextmanager
def _handing_on(
    blocks: nn.ModuleList, calls: list[tuple[tuple[Any, ...], dict[str, Any]]], first: list[Tensor]
) -> Iterator[None]:
    def hand_on(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not first:
            first.append(hidden)
        calls.append((args, kwargs))
        return hidden

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
def _reading(block: nn.Module, readers: Mapping[str, Reader], real: Tensor) -> Iterator[None]:
    with ExitStack() as stack:
        for path, reader in readers.items():

            def hook(_: nn.Module, inputs: tuple[Tensor, ...], reader: Reader = reader) -> None:
                Z = inputs[0]
                reader(Z.reshape(-1, Z.shape[-1])[real.reshape(-1)])

            stack.callback(module_at(block, path).register_forward_pre_hook(hook).remove)
        yield


def _require_finite(hidden: Tensor, place: str) -> None:
    wrong = int((~torch.isfinite(hidden)).sum())
    if wrong:
        raise NonFiniteError(
            f"{place}: {wrong} of {hidden.numel()} hidden states are NaN or infinite in {hidden.dtype}. "
            f"Nothing was written. Try --dtype float32, and check the weights of the blocks before."
        )
