"""Tokens per second of models side by side: reading a prompt, and writing after it."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from statprune.errors import InputError
from statprune.evaluation.devices import evaluating, place_of, takes

Clock = Callable[[], float]
"""Seconds since any moment."""


@dataclass(frozen=True)
class Timing:
    """Runs of one kind of one model: seconds of each, in order, and the tokens, of all rows, of one run."""

    tokens: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def per_second(self) -> float:
        """Tokens per second of the median run."""
        return self.tokens / self.median

    def to_json(self) -> dict[str, Any]:
        """Tokens per second, and the median, least, most and all of the seconds."""
        return {
            "tokens_per_second": self.per_second,
            "median": self.median,
            "least": min(self.seconds),
            "most": max(self.seconds),
            "seconds": list(self.seconds),
        }


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


class _Streamer:
    """A streamer for `generate` that notes when each token has arrived; the prompt comes first."""

    def __init__(self, now: Clock) -> None:
        self.now = now
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(self.now())

    def end(self) -> None:
        pass


def take_turns(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, tuple[float, ...]]:
    """Seconds of each run, in alternation (A, B, A, B, ...); a first one of each warms up, and is not kept.

    Alternating spreads a machine's slow minutes over all runs.

    Args:
        runs: Name → what runs once, and returns the seconds that count.
        repeats: Runs of each that are kept.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + repeats):
        for name, run in runs.items():
            found[name].append(run())
    return {name: tuple(seconds[1:]) for name, seconds in found.items()}


def waiting(device: torch.device, clock: Clock = time.perf_counter) -> Clock:
    """`clock`, read when `device` has done all that it was given."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    return now


def prefill_seconds(
    call: Callable[..., Any], inputs: Mapping[str, Any], model: nn.Module, now: Clock
) -> float:
    """Seconds of one forward pass of `model`, called by `call`; of a decoder's logits the last ones alone."""
    last = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    with evaluating(model):
        began = now()
        call(**inputs, **last)
        return now() - began


def decode_seconds(model: nn.Module, inputs: Mapping[str, Any], tokens: int, now: Clock) -> float:
    """Seconds from the first token written to `tokens` later, greedily and with the cache; none ends it."""
    streamer = _Streamer(now)
    generate: Any = model.generate
    with evaluating(model):
        generate(
            **inputs,
            max_new_tokens=tokens + 1,
            min_new_tokens=None,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=None,
            pad_token_id=0,
            streamer=streamer,
        )
    # The prompt, the token that the prefill gives, and those after it.
    _, first, *later = streamer.times
    return later[-1] - first


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

    Decoding is timed from the first written token on, so it holds no prefill; it is greedy, with the cache,
    and no token ends it early.

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
    runs: dict[str, Callable[[], float]] = {}
    for name, model in models.items():
        device, _ = place_of(model)
        inputs = {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids, device=device)}
        now = waiting(device)
        runs[f"prefill {name}"] = partial(prefill_seconds, model, inputs, model, now)
        if decode_tokens:
            runs[f"decode {name}"] = partial(decode_seconds, model, inputs, decode_tokens, now)
    found = take_turns(runs, repeats)
    return {
        name: _speed(model, ids, found[f"prefill {name}"], found.get(f"decode {name}", ()), decode_tokens)
        for name, model in models.items()
    }


def _speed(
    model: nn.Module,
    ids: Tensor,
    prefill: tuple[float, ...],
    decode: tuple[float, ...],
    decode_tokens: int,
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
    read = Timing(ids.numel(), prefill).per_second
    written = Timing(ids.shape[0] * decode_tokens, decode).per_second if decode else None
    return Speed(read, written, prefill, decode, protocol)
