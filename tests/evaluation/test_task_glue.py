"""Classes and scores equal one example at a time and metrics by hand, from every source, for every entry."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from statprune.calibration import sources
from statprune.evaluation.scoring import TaskResult, prepare, score
from statprune.evaluation.tasks import TASKS, task_named
from tests.evaluation.task_files import (
    accuracy,
    alone,
    f1,
    in_every_format,
    labelled,
    matthews,
    pearson,
    ranks,
)
from tests.saved import letter_tokenizer
from tests.tiny import tiny_model, uneven_cut

GLUE = [task for task in TASKS if task.kind in ("classes", "score")]
HEADS = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
    "llama": "LlamaForSequenceClassification",
}
BY_HAND = {"accuracy": accuracy, "f1": f1, "matthews": matthews}


def classifier(family: str = "bert", labels: int = 2, **config: Any) -> Any:
    return tiny_model(family, head=HEADS[family], num_labels=labels, **config)


@pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)
def test_every_entry_equals_one_example_at_a_time(task: Any) -> None:
    rows, tokenizer = labelled(task), letter_tokenizer("encoder")
    model = classifier(labels=len(task.label_names) or 1)
    found = score(model, tokenizer, task.name, rows)
    logits = [alone(model, tokenizer, *(row[name] for name in task.columns)).logits[0] for row in rows]
    labels = [row["label"] for row in rows]
    if task.kind == "score":
        said = [float(each[0]) for each in logits]
        expected = {
            "spearman": pearson(ranks(said).tolist(), ranks(labels).tolist()),
            "pearson": pearson(said, labels),
        }
        expected["mean"] = sum(expected.values()) / 2
    else:
        chosen = [int(each.argmax()) for each in logits]
        expected = {name: BY_HAND[name](chosen, labels) for name in task.metrics}
    assert found.metrics == pytest.approx(expected, rel=1e-4)
    assert list(found.metrics) == list(task.metrics)
    assert (found.score, found.metric) == (found.metrics[task.metrics[0]], task.metrics[0])
    assert (found.examples, found.truncated, found.skipped, found.notes) == (len(rows), 0, 0, ())
    assert found.higher_is_better


@pytest.mark.parametrize("family", list(HEADS))
@pytest.mark.parametrize("batch_tokens", [1, 100, 10**6])
def test_padding_changes_nothing(family: str, batch_tokens: int) -> None:
    rows = labelled(task_named("glue/stsb"))
    tokenizer = letter_tokenizer("encoder" if "bert" in family else "decoder")
    model = classifier(family, labels=1)
    prepared = prepare("glue/stsb", rows, tokenizer)
    expected = pearson(
        [float(alone(model, tokenizer, row["sentence1"], row["sentence2"]).logits) for row in rows],
        [row["label"] for row in rows],
    )
    assert prepared.score(model, batch_tokens=batch_tokens).metrics["pearson"] == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("none", [None, -1])
def test_a_decoder_without_padding_token_reads_one_at_a_time(none: int | None) -> None:
    rows, tokenizer = labelled(task_named("glue/sst2")), letter_tokenizer()
    model = classifier("gpt2")
    expected = score(model, tokenizer, "glue/sst2", rows)
    model.config.pad_token_id = none
    assert score(model, tokenizer, "glue/sst2", rows).metrics == expected.metrics


def test_blocks_of_any_widths_and_the_mode_is_put_back() -> None:
    rows, tokenizer = labelled(task_named("glue/mrpc")), letter_tokenizer("encoder")
    model = uneven_cut(classifier()).train()
    found = score(model, tokenizer, "glue/mrpc", rows)
    assert model.training
    model.eval()
    chosen = [
        int(alone(model, tokenizer, row["sentence1"], row["sentence2"]).logits.argmax()) for row in rows
    ]
    assert found.metrics["accuracy"] == pytest.approx(accuracy(chosen, [row["label"] for row in rows]))


def test_every_source_gives_the_same_number(tmp_path: Path) -> None:
    rows, tokenizer, model = (
        labelled(task_named("glue/mnli-matched")),
        letter_tokenizer("encoder"),
        classifier(labels=3),
    )
    expected = score(model, tokenizer, "glue/mnli-matched", rows)
    for name, source in in_every_format(rows, tmp_path).items():
        # The splits of MNLI have their own names: files and saved data sets are asked for theirs.
        data = f"{source}@validation" if name in ("saved", "split") else source
        found = score(model, tokenizer, "glue/mnli-matched", data)
        assert found.metrics == expected.metrics, name
        assert found.examples == len(rows)


def test_the_hub_is_asked_for_the_entry_and_gives_the_same_number(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, calls = labelled(task_named("glue/sst2")), []

    def load_dataset(*given: Any, **named: Any) -> Any:
        calls.append((given, named))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(sources.datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(sources.huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    tokenizer, model = letter_tokenizer("encoder"), classifier()
    found = score(model, tokenizer, "glue/sst2")
    assert calls == [(("nyu-mll/glue", "sst2"), {"split": "validation"})]
    assert found.metrics == score(model, tokenizer, "glue/sst2", rows).metrics
    data = found.protocol["data"]
    assert (data["source"], data["config"], data["split"]) == ("nyu-mll/glue", "sst2", "validation")


def test_labels_are_matched_by_name_where_the_model_names_them() -> None:
    task = task_named("glue/mnli-matched")
    rows, tokenizer = labelled(task), letter_tokenizer("encoder")
    model = classifier(labels=3)
    numbered = score(model, tokenizer, task, rows)
    assert numbered.protocol["labels matched"] == "by number"
    model.config.id2label = {0: "CONTRADICTION", 1: "Neutral", 2: "entailment"}
    named = score(model, tokenizer, task, rows)
    assert named.protocol["labels matched"] == "by name"
    chosen = [
        2 - int(alone(model, tokenizer, row["premise"], row["hypothesis"]).logits.argmax()) for row in rows
    ]
    assert named.score == pytest.approx(accuracy(chosen, [row["label"] for row in rows]))
    assert named.score != numbered.score


def test_labels_may_be_names_and_withheld_ones_are_counted() -> None:
    task = task_named("glue/rte")
    rows, tokenizer, model = labelled(task), letter_tokenizer("encoder"), classifier()
    expected = score(model, tokenizer, task, rows[:-2])
    words = [row | {"label": task.label_names[row["label"]]} for row in rows[:-2]]
    words += [rows[-2] | {"label": "-1"}, rows[-1] | {"label": None}]
    found = score(model, tokenizer, task, words)
    assert found.metrics == expected.metrics
    assert (found.examples, found.skipped, found.protocol["skipped"]) == (len(rows) - 2, 2, 2)


def test_truncated_examples_are_counted_and_read_as_far_as_allowed() -> None:
    rows = [{"sentence": "abc " * 10, "label": 0}, {"sentence": "ab", "label": 1}]
    tokenizer, model = letter_tokenizer("encoder"), classifier()
    found = score(model, tokenizer, "glue/sst2", rows, seq_len=12)
    assert (found.examples, found.truncated, found.protocol["truncated"]) == (2, 1, 1)
    first = alone(model, tokenizer, rows[0]["sentence"], longest=12).logits.argmax()
    second = alone(model, tokenizer, rows[1]["sentence"]).logits.argmax()
    assert found.score == pytest.approx(accuracy([int(first), int(second)], [0, 1]))


def test_a_drawn_part_is_that_of_the_seed_and_is_said() -> None:
    rows, tokenizer, model = labelled(task_named("glue/cola")), letter_tokenizer("encoder"), classifier()
    found = [score(model, tokenizer, "glue/cola", rows, max_examples=7, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0].protocol["examples"] == "7 of 24, drawn by seed 0"
    assert {each.examples for each in found} == {7}
    labels = [each.protocol["labels found"] for each in found]
    assert sum(labels[0].values()) == 7
    whole = score(model, tokenizer, "glue/cola", rows, max_examples=100)
    assert whole.protocol["examples"] == "all 24"
    assert whole.metrics == score(model, tokenizer, "glue/cola", rows).metrics


def test_what_cannot_be_told_is_said() -> None:
    tokenizer = letter_tokenizer("encoder")
    same = [{"sentence": "abc", "label": 1}, {"sentence": "abd", "label": 1}]
    found = score(classifier(), tokenizer, "glue/sst2", same)
    assert "of 2 labels negative never occurs in these 2 examples" in found.notes[0]
    pairs = [{"sentence1": "abc", "sentence2": "abc", "label": label} for label in (1.0, 2.5)]
    found = score(classifier(labels=1), tokenizer, "glue/stsb", pairs)
    assert (found.score, found.metrics["mean"]) == (0.0, 0.0)
    assert "all predictions are the same" in found.notes[0]


def test_prepared_once_it_is_asked_of_many_and_told_as_json() -> None:
    rows, tokenizer = labelled(task_named("glue/qqp")), letter_tokenizer("encoder")
    prepared, told = prepare("glue/qqp", rows, tokenizer, 40), []
    models = [classifier(), classifier(seed=5)]
    found = [
        prepared.score(model, told=lambda *counts: told.append(counts), batch_tokens=200) for model in models
    ]
    assert found == [score(model, tokenizer, "glue/qqp", rows, seq_len=40) for model in models]
    assert told[-1] == (len(rows), len(rows))
    assert found[0].seconds > 0
    facts = found[0].to_json()
    assert json.loads(json.dumps(facts)) == facts
    assert {field.name for field in dataclasses.fields(TaskResult)} == set(facts)
    assert found[0].headline().startswith("glue/qqp: accuracy ")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].score = 100.0  # type: ignore[misc]
