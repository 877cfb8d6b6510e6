"""Scores of lm-evaluation-harness for a model in memory, and all that they depend on."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

from statprune.errors import DataError
from statprune.evaluation.devices import evaluating, place_of
from statprune.evaluation.harness_process import Said, silent
from statprune.evaluation.harness_tasks import Tasks

SEEDS = {"python": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""The harness's own."""
_BOOTSTRAP = 100_000


@dataclass(frozen=True)
class Score:
    """One metric of one task, or of a group of tasks.

    Attributes:
        task: its name.
        metric: its name, as in the task's file: acc, acc_norm, word_perplexity ...
        filter: what the harness did with answers beforehand; "none" mostly.
        value: accuracies are shares, not percents.
        stderr: standard error of the value; None where the harness has none.
        version: of the task; None where its file tells none.
        shots: solved examples in front of each question; None for a group.
        examples: how many were asked.
        higher_is_better: None where the harness does not tell.
    """

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    version: str | None
    shots: int | None
    examples: int
    higher_is_better: bool | None


@dataclass(frozen=True)
class HarnessScores:
    """What the harness found.

    Attributes:
        scores: in the order in which tasks were given.
        protocol: all that two numbers must share to be comparable, ready for JSON.
    """

    scores: tuple[Score, ...]
    protocol: dict[str, Any]

    def value(self, task: str, metric: str) -> float:
        """The value of a task's metric.

        Raises:
            KeyError: there is none.
        """
        for score in self.scores:
            if (score.task, score.metric) == (task, metric):
                return score.value
        raise KeyError(f"no {metric} of {task}")

    def to_json(self) -> dict[str, Any]:
        """The attributes as a mapping that `json.dumps` takes."""
        return asdict(self)


class _Counter:
    """In the place of the harness's cache: told of every request that has its answer."""

    def __init__(self, told: Callable[[int, int], None], total: Callable[[], int]) -> None:
        self._told, self._total = told, total
        self._done, self._all = 0, 0

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        """One more."""
        # Known by now: the harness writes all requests before it asks the first.
        self._all = self._all or self._total()
        self._done += 1
        self._told(self._done, self._all)


def harness_scores(  # noqa: PLR0913 - all but four are named
    model: nn.Module,
    tokenizer: Any,
    tasks: Tasks,
    loaded: list[Any],
    *,
    said: Said,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 1,
    seed: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> HarnessScores:
    """The harness's own evaluation of a model as it is, in its dtype and on its device.

    Modes of modules and the tokenizer are as before afterwards. Nothing is printed.

    Args:
        model: one that predicts the next token, or an encoder with a decoder; of any widths.
        tokenizer: its tokenizer.
        tasks: from `find_tasks`.
        loaded: from `load_tasks`.
        said: from `listening`, which is still on, within `seeds_put_back`.
        num_fewshot: solved examples in front of each question; None takes each task's own number.
        limit: of each task no more than the first so many; None takes all.
        batch_size: rows at once; results differ by rounding only.
        seed: of every draw, that of solved examples among them; None takes the harness's own seeds.
        on_progress: called with requests answered, and all of them, after each.

    Raises:
        DataError: an answer is longer than what the model reads.
    """
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415 - an optional library

    seeds = dict(SEEDS) if seed is None else dict.fromkeys(SEEDS, seed)
    device, dtype = place_of(model)
    with ExitStack() as around:
        around.enter_context(evaluating(model))
        around.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        shown = around.enter_context(silent())
        # The harness gives a tokenizer without a padding token one.
        lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)
        if on_progress is not None:
            flat = tasks.manager.load(loaded)["tasks"].values()
            told = on_progress
            lm.set_cache_hook(
                _Counter(lambda done, all_: shown(lambda: told(done, all_)), lambda: _requests(flat))
            )
        found = _evaluated(
            lm,
            tasks=loaded,
            task_manager=tasks.manager,
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=batch_size,
            log_samples=False,
            # Of one example there is no standard error, and the harness would divide by zero.
            bootstrap_iters=0 if _single(tasks, loaded, limit) else _BOOTSTRAP,
            random_seed=seeds["python"],
            numpy_random_seed=seeds["numpy"],
            torch_random_seed=seeds["torch"],
            fewshot_random_seed=seeds["fewshot"],
        )
    protocol = {
        "harness": f"lm-eval {version('lm_eval')}",
        "tasks": list(tasks.names),
        "own_tasks": None if tasks.folder is None else tasks.folder.name,
        "data": {name: _data(settings) for name, settings in found["configs"].items()},
        "versions": {name: _text(of) for name, of in found["versions"].items()},
        "num_fewshot": num_fewshot,
        "limit": limit,
        "examples": {name: dict(counts) for name, counts in found["n-samples"].items()},
        "batch_size": batch_size,
        "chat_template": False,
        "max_length": lm.max_length,
        "truncated": said.cut,
        "seeds": seeds,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        "transformers": version("transformers"),
        "warnings": said.other,
    }
    return HarnessScores(tuple(_scores(found)), protocol)


def _evaluated(lm: Any, **options: Any) -> dict[str, Any]:
    import lm_eval  # noqa: PLC0415 - an optional library

    try:
        found: dict[str, Any] = lm_eval.simple_evaluate(model=lm, **options)
    except AssertionError as error:  # its way to say so
        raise DataError(
            f"lm-evaluation-harness gave up, most likely since an answer of a task is longer than the "
            f"{lm.max_length} tokens that this model reads. Leave out the task, or take a longer context."
        ) from error
    return found


def _scores(found: Mapping[str, Any]) -> Iterator[Score]:
    tables = {**found["results"], **found.get("groups", {})}
    for task, table in tables.items():
        better = found.get("higher_is_better", {}).get(task, {})
        for key, value in table.items():
            metric, comma, rule = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float | np.number):
                continue
            error = table.get(f"{metric}_stderr,{rule}")
            yield Score(
                task=task,
                metric=metric,
                filter=rule,
                value=float(value),
                stderr=float(error) if isinstance(error, int | float | np.number) else None,
                version=_text(found["versions"].get(task)),
                shots=found["n-shot"].get(task),
                examples=int(table["sample_len"]),
                higher_is_better=better.get(metric),
            )


def _requests(tasks: Any) -> int:
    """Answers that the tasks wait for."""
    return sum(instance.repeats for task in tasks for instance in task.instances)


def _single(tasks: Tasks, loaded: list[Any], limit: int | None) -> bool:
    """Whether some task has only one example."""
    return limit == 1 or any(len(task.eval_docs) < 2 for task in tasks.manager.load(loaded)["tasks"].values())


def _data(settings: Mapping[str, Any]) -> str:
    parts = (settings.get("dataset_path"), settings.get("dataset_name"))
    return ":".join(str(part) for part in parts if part)


def _text(value: Any) -> str | None:
    return None if value in (None, "N/A", "Yaml") else str(value)
