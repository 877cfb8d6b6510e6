"""Tokens per second of models side by side: reading a prompt, and writing after it."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from statprune.errors import InputError
from statprune.evaluation.devices import evaluating, place_of, takes


@dataclass(frozen=True)
class Speed:
    """Median speeds of one model.

    Attributes:
        prefill: Prompt tokens read per second, all rows together.
        decode: Tokens written per second after the prompt, all rows together; None where not measured.
        prefill_seconds: Every timed prefill, in order.
        decode_seconds: Every timed decoding, in order.
        protocol: batch, seq_len, decode_tokens, repeats, dtype, device, threads; ready for JSON.
    """

    prefill: float
    decode: float | None
    prefill_seconds: tuple[float, ...]
    decode_seconds: tuple[float, ...]
    protocol: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The attributes as a mapping that `json.dumps` takes."""
        return asdict(self)


class _Clock:
    """A streamer for `generate` that notes when each token has arrived; the prompt comes first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(_now(self.device))

    def end(self) -> None:
        pass


def tokens_per_second(
    models: Mapping[str, nn.Module],
    *,
    vocab_size: int,
    batch: int,
    seq_len: int,
    generator: torch.Generator,
    repeats: int = 5,
    decode_tokens: int = 0,
) -> dict[str, Speed]:
    """Median speed of each model, in alternating runs (A, B, A, B, ...) after one warm-up run each.

    Alternating spreads a machine's slow minutes over all models. Decoding is timed from the first written
    token on, so it holds no prefill; it is greedy, with the cache, and no token ends it early.

    Args:
        models: Name → model, on one device or several.
        vocab_size: Random token ids are below this.
        batch: Rows.
        seq_len: Tokens of the prompt, in each row.
        generator: Draws the token ids, on its own device.
        repeats: Timed runs of each model.
        decode_tokens: Tokens to write after the first one, in each row; 0 measures prefill only.

    Raises:
        InputError: There is no model, a size is below 1, or a model that shall decode cannot generate.
    """
    sizes = {"vocab_size": vocab_size, "batch": batch, "seq_len": seq_len, "repeats": repeats}
    wrong = [f"{name} {size}" for name, size in sizes.items() if size < 1]
    if wrong or not models or decode_tokens < 0:
        raise InputError(
            f"speed of {len(models)} models: {', '.join(wrong) or 'nothing'} to measure; take at least 1"
        )
    for name, model in models.items():
        if decode_tokens and not hasattr(model, "generate"):
            raise InputError(
                f"model {name!r}: {type(model).__name__} cannot generate; leave decode_tokens at 0"
            )
    ids = torch.randint(vocab_size, (batch, seq_len), generator=generator, device=generator.device)
    prefill: dict[str, list[float]] = {name: [] for name in models}
    decode: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(1 + repeats):
        for name, model in models.items():
            with evaluating(model):
                prefill[name].append(_prefill_seconds(model, ids))
                if decode_tokens:
                    decode[name].append(_decode_seconds(model, ids, decode_tokens))
    return {
        name: _speed(model, ids, prefill[name][1:], decode[name][1:], decode_tokens)
        for name, model in models.items()
    }


def _speed(
    model: nn.Module, ids: Tensor, prefill: list[float], decode: list[float], decode_tokens: int
) -> Speed:
    device, dtype = place_of(model)
    protocol = {
        "batch": ids.shape[0],
        "seq_len": ids.shape[1],
        "decode_tokens": decode_tokens,
        "repeats": len(prefill),
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "order": "alternating after one warm-up run of each model; medians",
    }
    read = ids.numel() / statistics.median(prefill)
    written = ids.shape[0] * decode_tokens / statistics.median(decode) if decode else None
    return Speed(read, written, tuple(prefill), tuple(decode), protocol)


def _prefill_seconds(model: nn.Module, ids: Tensor) -> float:
    device, _ = place_of(model)
    inputs: dict[str, Any] = {
        "input_ids": ids.to(device),
        "attention_mask": torch.ones_like(ids, device=device),
    }
    if takes(model, "logits_to_keep"):
        inputs["logits_to_keep"] = 1
    return _seconds(lambda: model(**inputs), device)


def _decode_seconds(model: nn.Module, ids: Tensor, decode_tokens: int) -> float:
    device, _ = place_of(model)
    clock = _Clock(device)
    generate: Any = model.generate
    generate(
        input_ids=ids.to(device),
        attention_mask=torch.ones_like(ids, device=device),
        max_new_tokens=decode_tokens + 1,
        min_new_tokens=None,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=None,
        pad_token_id=0,
        streamer=clock,
    )
    # The prompt, the token that the prefill gives, and those after it.
    _, first, *later = clock.times
    return later[-1] - first


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    start = _now(device)
    run()
    return _now(device) - start


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
