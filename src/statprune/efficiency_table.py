"""What `benchmark` found, as JSON, as a table, and as one sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from statprune.byte_size import byte_size
from statprune.evaluation.rounding import GAIN, Roundings
from statprune.evaluation.speed import Timing

SIZES = (
    "parameters",
    "block_parameters",
    "macs",
    "file_bytes",
    "weight_bytes",
    "cache_bytes_per_token",
    "forward_bytes",
)
TIMINGS = ("forward", "decode", "compiled")


@dataclass(frozen=True)
class Efficiency:
    """Sizes and times of one model.

    Attributes:
        model: Its folder or name.
        parameters: All, each once.
        block_parameters: Those of the prunable projections of attention and feed-forward.
        macs: Multiply-accumulates of these and of the scores between tokens, in the forward pass timed.
        file_bytes: Of its files of weights; None for a model in memory.
        weight_bytes: Of all parameters, as loaded.
        cache_bytes_per_token: Keys and values of one more token, all blocks together; None without a cache.
        forward_bytes: Peak memory of a forward pass above the loaded model; None where not measured.
        forward: Forward passes over the prompt.
        decode: Writing after it; None where not measured.
        compiled: The same as forward, by torch.compile.
    """

    model: str
    parameters: int
    block_parameters: int
    macs: int
    file_bytes: int | None
    weight_bytes: int
    cache_bytes_per_token: int | None
    forward_bytes: int | None
    forward: Timing
    decode: Timing | None = None
    compiled: Timing | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able content; of times also tokens per second."""
        timings: dict[str, Timing | None] = {name: getattr(self, name) for name in TIMINGS}
        return {
            "model": self.model,
            **{name: getattr(self, name) for name in SIZES},
            **{name: each.to_json() if each is not None else None for name, each in timings.items()},
        }


@dataclass(frozen=True)
class Benchmark:
    """A pruned model, and the dense one beside it, if there is one.

    Attributes:
        pruned: What was measured of the pruned model.
        dense: The same of the dense one.
        rounding: What other widths would do, where the pruned model is not faster over the prompt.
        protocol: All that two results must share to be comparable, ready for JSON.
    """

    pruned: Efficiency
    dense: Efficiency | None
    rounding: Roundings | None
    protocol: dict[str, Any]

    @property
    def ratios(self) -> dict[str, float]:
        """Of sizes pruned / dense, of times dense / pruned (above 1: faster); of what both have."""
        found: dict[str, float] = {}
        for name in SIZES if self.dense is not None else ():
            one, other = getattr(self.pruned, name), getattr(self.dense, name)
            if one is not None and other:
                found[name] = one / other
        for name in TIMINGS if self.dense is not None else ():
            one, other = getattr(self.pruned, name), getattr(self.dense, name)
            if one is not None and other is not None:
                found[name] = other.median / one.median
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return {
            "pruned": self.pruned.to_json(),
            "dense": None if self.dense is None else self.dense.to_json(),
            "ratios": self.ratios,
            "faster": None if self.dense is None else self.ratios["forward"] >= GAIN,
            "rounding": None if self.rounding is None else self.rounding.to_json(),
            "protocol": self.protocol,
        }

    def headline(self) -> str:
        """How fast it is, and, if it is not faster than the dense one, what would be."""
        if self.dense is None:
            return f"{self.pruned.forward.per_second:,.1f} tokens per second over the prompt"
        ratios = self.ratios
        told = f"{ratios['forward']:.2f} x as fast over the prompt"
        told += f", {ratios['decode']:.2f} x in decoding" if "decode" in ratios else ""
        told += f", with {ratios['block_parameters']:.1%} of the prunable parameters"
        if ratios["forward"] >= GAIN:
            return f"{told}."
        advice = "" if self.rounding is None else f" {self.rounding.told()}"
        return f"Not faster: {told}.{advice}"

    def columns(self) -> list[str]:
        """Titles of the columns of `rows`."""
        return ["", "pruned"] if self.dense is None else ["", "dense", "pruned", "ratio"]

    def rows(self) -> list[list[str]]:
        """A table for people; what was not measured has no row."""
        found = []
        for title, name, show in _ROWS:
            each, other = getattr(self.pruned, name), getattr(self.dense, name, None)
            if each is None:
                continue
            row = [title, *([] if self.dense is None else ["" if other is None else show(other)]), show(each)]
            if self.dense is not None:
                row.append(_ratio(name, self.ratios.get(name)))
            found.append(row)
        return found


def _ratio(name: str, ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f} x" if name in TIMINGS else f"{ratio:.3f}"


def _count(number: int) -> str:
    return f"{number:,}"


def _speed(timing: Timing) -> str:
    return f"{timing.per_second:,.1f}"


def _latency(timing: Timing) -> str:
    least, most = (f"{1000 * seconds:.1f}" for seconds in (min(timing.seconds), max(timing.seconds)))
    return f"{1000 * timing.median:.1f} ({least} to {most})"


_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("parameters", "parameters", _count),
    ("of which prunable, in blocks", "block_parameters", _count),
    ("MACs of these, and scores", "macs", _count),
    ("file of weights", "file_bytes", byte_size),
    ("weights in memory", "weight_bytes", byte_size),
    ("KV cache, bytes a token", "cache_bytes_per_token", _count),
    ("peak memory above the weights", "forward_bytes", byte_size),
    ("prefill, tokens/s", "forward", _speed),
    ("latency of it, ms (least to most)", "forward", _latency),
    ("prefill compiled, tokens/s", "compiled", _speed),
    ("latency of it, ms (least to most)", "compiled", _latency),
    ("decode, tokens/s", "decode", _speed),
)
