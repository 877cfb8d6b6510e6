"""Results that are kept in a folder -> the card's table, and the Hub's `model-index`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from huggingface_hub import EvalResult

from statprune.card.markdown import code, escaped, table
from statprune.evaluation.tasks import TASKS
from statprune.results import Recorded

OURS = {"recorded by": "statprune"}
"""Marks a metric of ours in the Hub's metadata, where the user may have put others."""

_TASKS = {
    "classes": "text-classification",
    "score": "text-classification",
    "spans": "question-answering",
    "masked": "fill-mask",
}
"""What the Hub calls a kind of task; all others are text-generation."""

_OF_HARNESS = ("harness", "limit", "max_length", "chat_template", "truncated", "seeds", "dtype", "device")
_KINDS = {task.name: task.kind for task in TASKS}


@dataclass(frozen=True)
class Number:
    """One metric of one measurement.

    Attributes:
        of: "this" or "dense".
        task: what was asked, for people.
        task_type: what the Hub calls it.
        data: where the questions came from: source, kind, config and split.
        metric: its name.
        value: in the metric's own unit.
        protocol: all else that two numbers must share to be comparable.
        stderr: standard error; None where there is none.
    """

    of: str
    task: str
    task_type: str
    data: Mapping[str, Any]
    metric: str
    value: float
    protocol: Mapping[str, Any]
    stderr: float | None = None

    @property
    def key(self) -> str:
        """The same for numbers that can be compared, whichever model they are of."""
        return json.dumps([self.task, self.metric, self.data, self.protocol], sort_keys=True, default=str)


def numbers_of(results: Sequence[Recorded]) -> list[Number]:
    """What evaluations and the harness have found; of several that say the same the last."""
    found: dict[tuple[str, str], Number] = {}
    for each in results:
        read = {"evaluation": _evaluated, "harness": _of_harness}.get(each.kind)
        for number in read(each) if read is not None else ():
            found.pop((number.of, number.key), None)
            found[number.of, number.key] = number
    return list(found.values())


def _evaluated(recorded: Recorded) -> Iterator[Number]:
    result = recorded.result
    protocol = dict(result.get("protocol") or {})
    data = dict(protocol.pop("data", None) or {})
    if "task" in result:
        kind = _KINDS.get(result["task"], "")
        for name, value in result["metrics"].items():
            yield _number(recorded, str(result["task"]), kind, data, (name, value), protocol)
    elif "perplexity" in result:
        yield _number(recorded, "perplexity", "", data, ("perplexity", result["perplexity"]), protocol)
    else:
        yield _number(recorded, "masked tokens", "masked", data, ("loss", result["loss"]), protocol)


def _number(
    recorded: Recorded,
    task: str,
    kind: str,
    data: Mapping[str, Any],
    metric: tuple[str, Any],
    protocol: Mapping[str, Any],
) -> Number:
    name, value = metric
    return Number(recorded.of, task, _TASKS.get(kind, "text-generation"), data, name, _float(value), protocol)


def _float(value: Any) -> float:
    """A number; JSON has none for NaN and infinities, and says null."""
    return float("nan") if value is None else float(value)


def _of_harness(recorded: Recorded) -> Iterator[Number]:
    whole = recorded.result.get("protocol") or {}
    for score in recorded.result["scores"]:
        metric = score["metric"] if score["filter"] == "none" else f"{score['metric']} ({score['filter']})"
        protocol = {
            "version": score["version"],
            "n-shot": score["shots"],
            "examples": score["examples"],
            **{name: whole.get(name) for name in _OF_HARNESS},
        }
        data = {"source": score["task"], "kind": "harness"}
        yield Number(
            recorded.of,
            f"{score['task']} (lm-evaluation-harness)",
            "text-generation",
            data,
            metric,
            _float(score["value"]),
            {name: value for name, value in protocol.items() if value is not None},
            score["stderr"],
        )


def evaluations(numbers: Sequence[Number]) -> list[EvalResult]:
    """Those of this model, as the Hub's metadata says them; what is not finite stays in the text."""
    return [
        EvalResult(
            task_type=number.task_type,
            dataset_type=_dataset_type(number.data),
            dataset_name=number.task if number.task != "perplexity" else str(number.data.get("source")),
            dataset_config=number.data.get("config"),
            dataset_split=number.data.get("split"),
            metric_type=number.metric,
            metric_value=number.value,
            metric_args=dict(OURS),
        )
        for number in numbers
        if number.of == "this" and isfinite(number.value)
    ]


def _dataset_type(data: Mapping[str, Any]) -> str:
    """The data set's name on the hub; what lies elsewhere has none."""
    return str(data["source"]) if data.get("kind") in ("hub", "harness") else "custom"


def comparison(numbers: Sequence[Number]) -> str:
    """This model beside the dense one where both were asked the same; then the protocols."""
    rows: dict[str, dict[str, Number]] = {}
    for number in numbers:
        rows.setdefault(number.key, {})[number.of] = number
    cells, protocols = [], []
    for place, both in enumerate(rows.values(), start=1):
        first = next(iter(both.values()))
        cells.append(
            [
                str(place),
                escaped(first.task),
                code(first.data.get("source", "")),
                escaped(first.metric),
                _value(both.get("this")),
                _value(both.get("dense")),
            ]
        )
        protocols.append(f"{place}. {_protocol(first)}")
    head = ["", "task", "data", "metric", "this model", "dense model"]
    return "\n\n".join([table(head, cells), "Protocol, row by row:", "\n".join(protocols)])


def _value(number: Number | None) -> str:
    if number is None:
        return "not measured"
    error = "" if number.stderr is None else f" ± {number.stderr:.4f}"
    return f"{number.value:.4f}{error}"


def _protocol(number: Number) -> str:
    data = {
        name: value for name, value in number.data.items() if name in ("kind", "config", "split", "records")
    }
    told = {**data, **number.protocol}
    return "; ".join(
        f"{escaped(name)}: {escaped(_short(value))}" for name, value in told.items() if value is not None
    )


def _short(value: Any) -> str:
    text = (
        value
        if isinstance(value, str) and value.strip()
        else json.dumps(value, ensure_ascii=False, default=str)
    )
    return text if len(text) <= 300 else f"{text[:297]}..."


def speed(results: Sequence[Recorded]) -> str:
    """The last benchmark of this model against the dense one, in a table; "" without one."""
    both = [each for each in results if each.kind == "benchmark" and each.result.get("dense")]
    if not both:
        return ""
    result = both[-1].result
    return _benchmark(result)


def _benchmark(result: Mapping[str, Any]) -> str:
    rows = []
    for name, ratio in (result.get("ratios") or {}).items():
        dense, pruned = (_quantity(result[which].get(name)) for which in ("dense", "pruned"))
        rows.append([escaped(name.replace("_", " ")), dense, pruned, f"{ratio:.3f}"])
    told = "; ".join(
        f"{escaped(name)}: {escaped(_short(value))}"
        for name, value in (result.get("protocol") or {}).items()
        if value is not None
    )
    head = ["", "dense", "this model", "ratio (sizes: kept; times: speed-up)"]
    return "\n\n".join([table(head, rows), f"Protocol: {told}"])


def _quantity(value: Any) -> str:
    if isinstance(value, Mapping):
        rate = value.get("tokens_per_second")
        return "" if rate is None else f"{rate:,.0f} tokens/s"
    return "" if value is None else f"{value:,.0f}"
