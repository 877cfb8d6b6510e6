"""The tasks that a model can be judged by, one declarative entry each."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from statprune.errors import InputError

Kind = Literal["classes", "score", "spans", "last word", "perplexity"]


@dataclass(frozen=True)
class Task:
    r"""What a task is read from and judged by; data only.

    Attributes:
        name: As `--task` takes it.
        kind: How it is asked: 'classes' and 'score' of one or two texts, 'spans' of a context, the 'last
            word' of a text, or the 'perplexity' of a whole text.
        hub: Where it lies on the hub, NAME:CONFIG@SPLIT.
        columns: The columns of text: one or two of classes and scores; question and context of spans.
        metrics: Names of the metrics, the headline first.
        label_names: Of classes, by their number; empty for other kinds.
        seq_len: Longest example in tokens, where the model's context allows; None for the smaller of 2048 and
            the context.
        label: The column of the labels, or of the answers.
        no_answer: Whether questions may have no answer (SQuAD v2).
        stride: Tokens that two windows of a long context share.
        join: What stands between two records of a text.
        lines: Whether a plain text file holds one record a line; else it is one text as it stands.
        first_records: Read no more records than these, from the first.
        windows: Read no more windows than these, from the first.
        source: Who made the data, and what the metrics follow, in a few words.
    """

    name: str
    kind: Kind
    hub: str
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    label_names: tuple[str, ...] = ()
    seq_len: int | None = None
    label: str = "label"
    no_answer: bool = False
    stride: int = 128
    join: str = "\n\n"
    lines: bool = False
    first_records: int | None = None
    windows: int | None = None
    source: str = ""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger headline metric is a better one."""
        return self.metrics[0] != "perplexity"


_ACCURACY, _WITH_F1 = ("accuracy",), ("accuracy", "f1")
_PAIR = ("sentence1", "sentence2")
_NLI = ("entailment", "neutral", "contradiction")
_ENTAILED = ("entailment", "not_entailment")
_MNLI = ("premise", "hypothesis")
_QA = ("question", "context")
_SPANS_V1 = ("f1", "exact_match")
_SPANS_V2 = (
    *("f1", "exact", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"),
    *("best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"),
)

_METRICS: dict[Kind, tuple[str, ...]] = {
    "classes": ("accuracy", "f1", "matthews"),
    "score": ("spearman", "pearson", "mean"),
    "spans": _SPANS_V1,
    "last word": ("accuracy", "perplexity"),
    "perplexity": ("perplexity",),
}


def _glue(
    name: str,
    columns: tuple[str, ...],
    metrics: tuple[str, ...],
    label_names: tuple[str, ...],
    source: str,
) -> Task:
    config, _, part = name.partition("-")
    return Task(
        name=f"glue/{name}",
        kind="classes" if label_names else "score",
        hub=f"nyu-mll/glue:{config}@validation{'_' + part if part else ''}",
        columns=columns,
        metrics=metrics,
        label_names=label_names,
        seq_len=128,
        source=source,
    )


TASKS: tuple[Task, ...] = (
    _glue("mnli-matched", _MNLI, _ACCURACY, _NLI, "GLUE; MultiNLI, Williams et al. 2018"),
    _glue("mnli-mismatched", _MNLI, _ACCURACY, _NLI, "GLUE; MultiNLI, Williams et al. 2018"),
    _glue(
        "qqp", ("question1", "question2"), _WITH_F1, ("not_duplicate", "duplicate"), "GLUE; Quora, Iyer 2017"
    ),
    _glue("qnli", ("question", "sentence"), _ACCURACY, _ENTAILED, "GLUE; from SQuAD, Wang et al. 2018"),
    _glue("sst2", ("sentence",), _ACCURACY, ("negative", "positive"), "GLUE; Socher et al. 2013"),
    _glue("stsb", _PAIR, ("spearman", "pearson", "mean"), (), "GLUE; Cer et al. 2017"),
    _glue("mrpc", _PAIR, _WITH_F1, ("not_equivalent", "equivalent"), "GLUE; Dolan and Brockett 2005"),
    _glue(
        "cola",
        ("sentence",),
        ("matthews", "accuracy"),
        ("unacceptable", "acceptable"),
        "GLUE; Warstadt et al. 2019",
    ),
    _glue("rte", _PAIR, _ACCURACY, _ENTAILED, "GLUE; RTE 1 to 3 and 5, Dagan et al. 2006"),
    _glue("wnli", _PAIR, _ACCURACY, ("not_entailment", "entailment"), "GLUE; Levesque et al. 2011"),
    Task(
        name="squad",
        kind="spans",
        hub="rajpurkar/squad@validation",
        columns=_QA,
        metrics=_SPANS_V1,
        seq_len=384,
        label="answers",
        source="SQuAD v1.1, Rajpurkar et al. 2016; as its evaluate-v1.1.py",
    ),
    Task(
        name="squad_v2",
        kind="spans",
        hub="rajpurkar/squad_v2@validation",
        columns=_QA,
        metrics=_SPANS_V2,
        seq_len=384,
        label="answers",
        no_answer=True,
        source="SQuAD v2.0, Rajpurkar et al. 2018; as its evaluate-v2.0.py",
    ),
    Task(
        name="wikitext2",
        kind="perplexity",
        hub="Salesforce/wikitext:wikitext-2-raw-v1@test",
        columns=("text",),
        metrics=("perplexity",),
        source="WikiText-2, raw, Merity et al. 2016; as in GPTQ, SliceGPT and Wanda",
    ),
    Task(
        name="ptb",
        kind="perplexity",
        hub="ptb-text-only/ptb_text_only:penn_treebank@test",
        columns=("sentence",),
        metrics=("perplexity",),
        join=" ",
        lines=True,
        source="Penn Treebank, text only, Marcus et al. 1993; sentences joined with spaces, as in SparseGPT",
    ),
    Task(
        name="c4",
        kind="perplexity",
        hub="allenai/c4:en@validation",
        columns=("text",),
        metrics=("perplexity",),
        join=" ",
        first_records=1100,
        windows=256,
        source="C4, Raffel et al. 2020; first 1,100 texts joined with spaces, 256 windows, as in GPTQ",
    ),
    Task(
        name="lambada",
        kind="last word",
        hub="EleutherAI/lambada_openai:default@test",
        columns=("text",),
        metrics=("accuracy", "perplexity"),
        lines=True,
        source="LAMBADA, Paperno et al. 2016, in OpenAI's layout",
    ),
)


def task_named(name: str | Task) -> Task:
    """The entry of this name; an entry of the caller's own is given back as it is.

    Raises:
        InputError: There is none, or it asks for metrics that its kind does not have.
    """
    if isinstance(name, Task):
        known = _SPANS_V2 if name.no_answer else _METRICS[name.kind]
        if not name.metrics or not set(name.metrics) <= set(known):
            raise InputError(
                f"task {name.name!r}: metrics {', '.join(name.metrics) or 'none'}; of kind {name.kind!r} "
                f"take some of {', '.join(known)}, the headline first."
            )
        return name
    for task in TASKS:
        if task.name == name:
            return task
    names = [task.name for task in TASKS]
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"task {name!r}: no such task; {hint}Known are {', '.join(names)}.")


def as_markdown() -> str:
    """The table of the tasks, as docs/evaluation.md has it."""
    lines = [
        "| task | on the hub | columns | labels | metrics, the headline first | after |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task in TASKS:
        labels = ", ".join(f"{number} {name}" for number, name in enumerate(task.label_names))
        asked = labels or ("a number" if task.kind == "score" else "answers" if task.kind == "spans" else "")
        cells = (task.name, task.hub, ", ".join(task.columns), asked, ", ".join(task.metrics), task.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
