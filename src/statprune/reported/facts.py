"""JSON -> what a page says of a model before and after: size, MACs, quality, speed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from statprune.reported.reading import Left
from statprune.reported.wording import at, number, percent, plain, seconds, size, told, whole

Show = Callable[[float | None], str]


@dataclass(frozen=True)
class Pair:
    """One number, before and after.

    Attributes:
        name: what is counted or measured.
        dense, kept: before and after; None where it is not recorded.
        show: the number in words.
        unit: what charts count it in; pairs of one unit can be drawn side by side.
        protocol: how it was counted or measured.
        better: -1 where less is better, 1 where more is; 0 where nobody can say.
        points: whether a difference is told in the unit itself, and not in per cent.
        key: what two numbers share that can be compared.
    """

    name: str
    dense: float | None
    kept: float | None
    show: Show
    unit: str
    protocol: str
    better: int = -1
    points: bool = False
    key: str = ""

    @property
    def share(self) -> float | None:
        """After over before."""
        return self.kept / self.dense if self.dense and self.kept is not None else None

    @property
    def change(self) -> str:
        """The difference in words."""
        if self.dense is None or self.kept is None:
            return ""
        if self.points:
            return f"{self.kept - self.dense:+.2f}"
        return "" if self.share is None else f"{100 * (self.share - 1):+.1f}%"

    @property
    def row(self) -> list[str]:
        """Name, before, after, change."""
        return [self.name, self.show(self.dense), self.show(self.kept), self.change]


def sizes(left: Left) -> list[Pair]:
    """Parameters, bytes and multiply-accumulates."""
    record = left.record
    pairs = [
        ("parameters, whole model", ("parameters",), whole, "parameters", "each weight once, embeddings too"),
        ("weights on disk", ("bytes",), size, "bytes", "files of weights"),
        (
            "parameters that can be pruned",
            ("cost", "params"),
            whole,
            "parameters",
            "weights and biases of attention and feed-forward, all blocks",
        ),
        (
            "MACs that can be pruned, a token",
            ("cost", "macs"),
            whole,
            "MACs",
            f"multiply-accumulates, scores between tokens too, at {told(record.get('context'))} tokens "
            f"of context",
        ),
    ]
    return [
        Pair(name, number(at(record, *path, "dense")), number(at(record, *path, "kept")), show, unit, how)
        for name, path, show, unit, how in pairs
        if isinstance(at(record, *path), Mapping)
    ]


def quality(left: Left) -> list[Pair]:
    """Every metric evaluated, the gate's first; numbers by one protocol are one pair."""
    found: dict[str, dict[str, Any]] = {}
    gate = left.record.get("gate")
    if isinstance(gate, Mapping):
        chosen = [each for each in maps(gate.get("trials")) if each.get("keep") == gate.get("keep")]
        name = f"{told(gate.get('metric'))} of {told(gate.get('task'))}"
        points = gate.get("unit") == "points"
        metric = Metric(name, number(gate.get("dense")), points, 1 if points else -1)
        for of, score in (
            ("dense", metric.value),
            ("this", number(chosen[0].get("score")) if chosen else None),
        ):
            _note(found, metric, gate.get("protocol"), of, score)
    for each in left.results:
        if each.get("kind") in ("evaluation", "harness"):
            result = at(each, "result")
            for metric in metrics(result):
                _note(found, metric, at(result, "protocol"), str(each.get("of")), metric.value)
    return [
        Pair(
            metric.name,
            each.get("dense"),
            each.get("this"),
            plain,
            metric.unit,
            told(each["protocol"]),
            metric.better,
            metric.points,
            key,
        )
        for key, each in found.items()
        for metric in [each["metric"]]
    ]


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation."""

    name: str
    value: float | None
    points: bool
    better: int

    @property
    def unit(self) -> str:
        """What it is counted in."""
        return "points, 0 to 100" if self.points else self.name.partition(" of ")[0]


def metrics(result: Any) -> list[Metric]:
    """The headline numbers of what `evaluate --json` prints."""
    if isinstance(at(result, "scores"), Sequence):
        return [
            Metric(
                f"{told(each.get('metric'))} of {told(each.get('task'))}",
                number(each.get("value")),
                False,
                _sign(each.get("higher_is_better")),
            )
            for each in maps(result["scores"])
        ]
    if isinstance(at(result, "task"), str):
        points = bool(result.get("higher_is_better"))
        name = f"{told(result.get('metric'))} of {told(result.get('task'))}"
        return [Metric(name, number(result.get("score")), points, 1 if points else -1)]
    named = (("perplexity", "perplexity"), ("loss", "masked-token loss"))
    source = at(result, "protocol", "data", "source")
    of = f" of {source.rpartition('/')[2]}" if isinstance(source, str) else ""
    return [
        Metric(title + of, number(at(result, name)), False, -1)
        for name, title in named
        if number(at(result, name)) is not None
    ]


PASSES = (("forward", "reading a prompt"), ("decode", "writing"), ("compiled", "reading, compiled"))


def speed(left: Left) -> list[Pair]:
    """Tokens per second, latency and memory of every benchmark."""
    found = []
    for each in left.results:
        if each.get("kind") != "benchmark":
            continue
        result = at(each, "result")
        how = told(at(result, "protocol") or {})
        protocol = _key("", at(result, "protocol"))
        dense, kept = at(result, "dense"), at(result, "pruned")
        if each.get("of") == "dense" and dense is None:
            dense, kept = kept, None
        for name, title in PASSES:
            for part, show, unit, better in (
                ("tokens_per_second", plain, "tokens a second", 1),
                ("median", seconds, "seconds", -1),
            ):
                values = number(at(dense, name, part)), number(at(kept, name, part))
                if values != (None, None):
                    title_of = f"{title}, {'tokens/s' if better > 0 else 'median time'}"
                    found.append(
                        Pair(title_of, *values, show, unit, how, better, key=f"{title_of} {protocol}")
                    )
        memory = number(at(dense, "forward_bytes")), number(at(kept, "forward_bytes"))
        if memory != (None, None):
            title = "peak memory above the weights"
            found.append(Pair(title, *memory, size, "bytes", how, key=f"{title} {protocol}"))
    return _joined(found)


def _joined(pairs: Sequence[Pair]) -> list[Pair]:
    """Later numbers take the place of earlier ones by the same protocol."""
    latest: dict[str, Pair] = {}
    for pair in pairs:
        before = latest.get(pair.key)
        dense = before.dense if pair.dense is None and before else pair.dense
        kept = before.kept if pair.kept is None and before else pair.kept
        rest = (pair.show, pair.unit, pair.protocol, pair.better, pair.points, pair.key)
        latest[pair.key] = Pair(pair.name, dense, kept, *rest)
    return list(latest.values())


def _note(
    found: dict[str, dict[str, Any]], metric: Metric, protocol: Any, of: str, score: float | None
) -> None:
    entry = found.setdefault(_key(metric.name, protocol), {"metric": metric, "protocol": protocol or {}})
    if score is not None:
        entry["this" if of == "this" else "dense"] = score


ASIDE = ("dtype", "device", "threads", "versions", "attention", "peak_memory", "model")
"""What of a protocol does not make two numbers another measure."""


def _key(name: str, protocol: Any) -> str:
    if isinstance(protocol, Mapping):
        protocol = {part: value for part, value in protocol.items() if part not in ASIDE}
    return f"{name} {json.dumps(protocol, sort_keys=True, default=str)}"


def maps(content: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; none where it is no list."""
    each_of = content if isinstance(content, Sequence) and not isinstance(content, str) else ()
    return [each for each in each_of if isinstance(each, Mapping)]


def _sign(higher_is_better: Any) -> int:
    return {True: 1, False: -1}.get(higher_is_better, 0) if isinstance(higher_is_better, bool) else 0


def damage(left: Left) -> Pair:
    """Damage predicted, in the place of before, and measured."""
    trace = left.record.get("trace")
    what = at(trace, "damage")
    protocol = what if isinstance(what, str) and what else "divergence of the outputs from the dense model's"
    numbers = number(at(trace, "predicted")), number(at(trace, "divergence"))
    return Pair("damage", *numbers, plain, unit_of_damage(what), protocol)


def unit_of_damage(what: Any) -> str:
    """What damage is counted in, by its description in words as a record has it (engine/divergence.py)."""
    words = what if isinstance(what, str) else ""
    known = {"nats a choice": "nats a choice", "squared error": "relative squared error"}
    return next((unit for said, unit in known.items() if said in words), "divergence")


def shares(left: Left) -> str:
    """What is kept, in words."""
    told_of = [
        f"{percent(number(at(left.record, 'cost', part, 'share')))} of the {name}"
        for part, name in (("params", "parameters"), ("macs", "MACs"))
        if number(at(left.record, "cost", part, "share")) is not None
    ]
    columns = number(at(left.record, "plan", "value_dim"))
    if columns is not None:
        told_of.append(f"{whole(columns)} columns of the values of every head")
    before, last = told_of[:-1], told_of[-1:]
    return " and ".join([", ".join(before), *last] if before else last)
