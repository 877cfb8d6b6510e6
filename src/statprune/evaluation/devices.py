"""Where and how a model computes, and what it can read at once."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from statprune.errors import DataError

# Logits of one forward pass, at most, unless one window alone has more: 1 GiB in float32.
LOGITS_AT_ONCE = 2**28
# Logits that are turned into float32 log-probabilities at a time.
LOSSES_AT_ONCE = 2**25


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inference without dropout and without gradients; every module's mode is put back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def place_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device that takes the model's inputs, and the type of its floating point weights."""
    tables = getattr(model, "get_input_embeddings", lambda: None)()
    first = next((tables if tables is not None else model).parameters(), None)
    parameter = first if first is not None else next(model.parameters())
    return parameter.device, parameter.dtype


def takes(model: nn.Module, argument: str) -> bool:
    """Whether the forward method names this argument."""
    return argument in inspect.signature(model.forward).parameters


def require_fit(model: nn.Module, ids: Tensor, seq_len: int) -> None:
    """Nothing, when the model has positions for `seq_len` tokens and rows for all ids.

    Raises:
        DataError: It has not.
    """
    tables = getattr(model, "get_input_embeddings", lambda: None)()
    rows = getattr(tables, "num_embeddings", None)
    if rows is not None and ids.numel() and int(ids.max()) >= rows:
        message = f"token id {int(ids.max())}, but the model's vocabulary has {rows} tokens"
        raise DataError(f"{message}; use the model's own tokenizer")
    longest = text_config(model, "max_position_embeddings")
    if longest is not None and seq_len > longest:
        message = f"sequence length {seq_len}, but the model reads at most {longest} tokens"
        raise DataError(f"{message}; take at most {longest}")


def text_config(model: nn.Module, name: str) -> Any:
    """A value of the model's (text) configuration, or None."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    return getattr(config, name, None)


def rows_at_once(model: nn.Module, seq_len: int, batch_tokens: int) -> int:
    """Windows in a batch: as many as `batch_tokens` and the memory for their logits allow, at least one."""
    vocabulary = text_config(model, "vocab_size") or 1
    return max(1, min(batch_tokens // seq_len, LOGITS_AT_ONCE // (seq_len * vocabulary)))


def summed_loss(logits: Tensor, targets: Tensor) -> float:
    """-Σ log softmax(logits)[targets], log-softmax in float32, sum in float64, piece by piece.

    Args:
        logits: (positions, vocabulary), any floating point type.
        targets: (positions,) int64, on the same device.
    """
    total = 0.0
    step = max(1, LOSSES_AT_ONCE // logits.shape[-1])
    for piece, wanted in zip(torch.split(logits, step), torch.split(targets, step), strict=True):
        losses = nn.functional.cross_entropy(piece.float(), wanted, reduction="none")
        total += float(losses.double().sum())
    return total
