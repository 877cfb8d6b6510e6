"""What does not fit is refused before the model is asked, with value, place and remedy."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

import statprune
from statprune.errors import DataError, InputError, ModelError, NonFiniteError
from statprune.evaluation.scoring import prepare, score
from statprune.evaluation.tasks import task_named
from tests.evaluation.task_files import asked, labelled, nested
from tests.saved import letter_tokenizer
from tests.tiny import tiny_model


def classifier(labels: int = 2, family: str = "bert", **config: Any) -> Any:
    head = {"bert": "BertForSequenceClassification", "llama": "LlamaForSequenceClassification"}[family]
    return tiny_model(family, head=head, num_labels=labels, **config)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return letter_tokenizer("encoder")


def rows(**changed: Any) -> list[dict[str, Any]]:
    return [row | changed for row in labelled(task_named("glue/sst2"), 6)]


DATA: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "column": (
        "glue/rte",
        rows(),
        ("no column 'sentence1'", "glue/rte reads sentence1, sentence2, label", "there are"),
    ),
    "label column": (
        "glue/sst2",
        [{"sentence": "a"}],
        ("no column 'label'", "glue/sst2 reads sentence, label"),
    ),
    "label": ("glue/sst2", rows(label=2), ("record 1: label 2", "of glue/sst2: 0 negative, 1 positive")),
    "label name": ("glue/sst2", rows(label="good"), ("record 1: label 'good'", "0 negative, 1 positive")),
    "part of a label": ("glue/sst2", rows(label=0.5), ("record 1: label 0.5",)),
    "withheld": (
        "glue/sst2",
        rows(label=-1),
        ("none of 6 records has a label in column 'label'", "validation"),
    ),
    "score": (
        "glue/stsb",
        [{"sentence1": "a", "sentence2": "b", "label": "much"}],
        ("record 1: label 'much' is not a number",),
    ),
    "withheld scores": (
        "glue/stsb",
        [{"sentence1": "a", "sentence2": "b", "label": -1.0}] * 2,
        ("none of 2 records has a label in column 'label'", "validation"),
    ),
    "answers as CSV writes them": (
        "squad",
        [{"question": "a", "context": "b", "answers": "{'text': array(['b']), 'answer_start': array([0])}"}],
        ("record 1: column 'answers' holds", "take JSON lines or Parquet"),
    ),
    "null text": (
        "glue/sst2",
        [{"sentence": "a", "label": 0}, {"sentence": None, "label": 0}],
        ("record 2: column 'sentence' holds null",),
    ),
    "empty": ("glue/sst2", [], ("memory: empty; glue/sst2 needs at least one record",)),
    "not rows": ("glue/sst2", 3, ("int found", "give a list of mappings")),
    "no answers": (
        "squad",
        asked(3, some_without=True),
        ("record 1: no answer in column 'answers'", "squad_v2"),
    ),
    "answers": (
        "squad",
        [{"question": "a", "context": "b", "answers": 3}],
        ("record 1: column 'answers' holds '3'",),
    ),
    "same id": ("squad", [asked(1)[0], asked(1)[0]], ("record 2: id 'q0' comes twice",)),
    "not texts": ("lambada", [[5, 6]], ("record 1: tuple found; lambada reads texts",)),
}


@pytest.mark.parametrize("name", list(DATA))
def test_data_that_does_not_fit(name: str, tokenizer: Any) -> None:
    task, data, says = DATA[name]
    with pytest.raises(DataError) as refused:
        prepare(task, data, tokenizer, 48)
    for part in says:
        assert part in str(refused.value)


def test_a_text_without_tokens_is_refused() -> None:
    bare = letter_tokenizer()
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    data = [{"sentence": "a", "label": 0}, {"sentence": "", "label": 0}]
    with pytest.raises(DataError, match="memory, record 2: no token in"):
        prepare("glue/sst2", data, bare, 48)


def test_files_that_do_not_fit(tokenizer: Any, tmp_path: Path) -> None:
    broken = nested(asked(1))
    del broken["data"][0]["paragraphs"][0]["qas"][0]["answers"]
    (tmp_path / "dev.json").write_text(json.dumps(broken))
    with pytest.raises(DataError, match=r"dev\.json: not SQuAD's JSON \(KeyError: 'answers'\)"):
        prepare("squad", str(tmp_path / "dev.json"), tokenizer, 48)
    (tmp_path / "rows.txt").write_text("some text")
    with pytest.raises(DataError, match=r"rows\.txt: not a table; give a file that ends in \.jsonl"):
        prepare("glue/sst2", str(tmp_path / "rows.txt"), tokenizer, 48)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="the file is empty"):
        prepare("glue/sst2", str(tmp_path / "empty.jsonl"), tokenizer, 48)
    with pytest.raises(DataError, match="no such file"):
        prepare("glue/sst2", str(tmp_path / "gone.jsonl"), tokenizer, 48)


MODELS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "too many labels": (
        "glue/sst2",
        lambda: classifier(3),
        (
            "BertForSequenceClassification has 3 labels (LABEL_0, LABEL_1, LABEL_2)",
            "glue/sst2 has 2 (negative, positive)",
        ),
    ),
    "too few labels": (
        "glue/mnli-matched",
        lambda: classifier(2),
        ("has 2 labels", "has 3 (entailment, neutral, contradiction)"),
    ),
    "classes for a score": (
        "glue/stsb",
        lambda: classifier(2),
        ("glue/stsb asks for one number", "num_labels 1"),
    ),
    "some names": (
        "glue/rte",
        lambda: classifier(2, id2label={0: "entailment", 1: "contradiction"}),
        ("entailment, contradiction", "entailment, not_entailment", "id2label of config.json"),
    ),
    "another head": (
        "glue/sst2",
        lambda: tiny_model("bert"),
        ("BertForMaskedLM has no head that classifies texts", "ForSequenceClassification"),
    ),
    "no span head": ("squad", classifier, ("has no head that finds answers", "...ForQuestionAnswering")),
    "no writer": ("lambada", classifier, ("has no head that writes", "...ForCausalLM")),
    "an encoder": (
        "wikitext2",
        lambda: tiny_model("bert"),
        ("BertForMaskedLM has no head that writes", "wikitext2"),
    ),
    "two stacks": (
        "wikitext2",
        lambda: tiny_model("t5"),
        ("T5ForConditionalGeneration has no head that writes",),
    ),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_models_that_do_not_fit_are_refused_before_any_data(name: str, tokenizer: Any) -> None:
    task, made, says = MODELS[name]
    with pytest.raises(ModelError) as refused:
        statprune.evaluate(made(), task=task, data="nowhere.jsonl", tokenizer=tokenizer)
    for part in says:
        assert part in str(refused.value)


def test_examples_longer_than_the_context(tokenizer: Any) -> None:
    long = [{"sentence": "abc " * 30, "label": 0}, {"sentence": "ab", "label": 1}]
    with pytest.raises(
        DataError, match=r"an example of 122 tokens, but BertForS\w+ reads at most 64; .* seq_len 64"
    ):
        score(classifier(), tokenizer, "glue/sst2", long)
    found = statprune.evaluate(classifier(), task="glue/sst2", data=long, tokenizer=tokenizer)
    assert (found.truncated, found.protocol["seq_len"]) == (1, 64)


def test_numbers_that_make_no_sense(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="max_examples is 0; give at least 1"):
        prepare("glue/sst2", rows(), tokenizer, max_examples=0)
    with pytest.raises(DataError, match="sequence length 2: no room for text"):
        prepare("glue/sst2", rows(), tokenizer, 2)
    with pytest.raises(DataError, match=r"sequence length 6: no room for a question .* take at least 7"):
        prepare("squad", asked(2), tokenizer, 6)
    assert prepare("squad", asked(2), tokenizer, 7).questions.truncated == 2
    with pytest.raises(DataError, match="sequence length 1: nothing to predict"):
        prepare("wikitext2", ["some text"], tokenizer, 1)
    with pytest.raises(DataError, match="one window needs 64"):
        prepare("wikitext2", ["some text"], tokenizer, 64)
    with pytest.raises(DataError, match="sequence length 65: this model takes from 2 to 64"):
        statprune.evaluate(classifier(), task="glue/sst2", data=rows(), tokenizer=tokenizer, seq_len=65)


def test_options_that_do_not_go_together(tokenizer: Any) -> None:
    model, data = classifier(), rows()
    with pytest.raises(InputError, match=r"task 'glue/sst-2': no such task; did you mean glue/sst2\?"):
        statprune.evaluate(model, task="glue/sst-2", data=data, tokenizer=tokenizer)
    with pytest.raises(DataError, match="neither data nor task is given"):
        statprune.evaluate(model, tokenizer=tokenizer)
    with pytest.raises(DataError, match="max_tokens is 9, and a task is given; give max_examples"):
        statprune.evaluate(model, task="glue/sst2", data=data, tokenizer=tokenizer, max_tokens=9)
    with pytest.raises(DataError, match="max_examples is 9, but there is no task; give max_tokens"):
        statprune.evaluate(model, data=["text"], tokenizer=tokenizer, max_examples=9)
    with pytest.raises(DataError, match=r"text column a, b: glue/sst2 reads 1 columns of text \(sentence\)"):
        statprune.evaluate(model, task="glue/sst2", data=data, tokenizer=tokenizer, text_column=("a", "b"))
    with pytest.raises(DataError, match="tokenizer that is missing"):
        statprune.evaluate(model, task="glue/sst2", data=data)


def test_a_tokenizer_that_does_not_know_where_its_tokens_stand() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(
        DataError, match=r"tokenizer Slow: does not tell where tokens stand.*squad needs; take a fast"
    ):
        prepare("squad", asked(2), Slow(), 48)


def test_outputs_that_are_no_numbers(tokenizer: Any) -> None:
    model = classifier()
    with torch.no_grad():
        model.classifier.bias[0] = math.nan
    with pytest.raises(NonFiniteError, match="model's output is NaN or infinite"):
        score(model, tokenizer, "glue/sst2", rows())
    with pytest.raises(NonFiniteError, match=r"classifier\.bias"):
        statprune.evaluate(model, task="glue/sst2", data="nowhere.jsonl", tokenizer=tokenizer)


def test_a_vocabulary_that_is_too_small(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="the model's vocabulary has 8 tokens"):
        score(classifier(vocab_size=8), tokenizer, "glue/sst2", rows())
