"""Harness tasks: figures equal those computed by hand, whatever the widths; refusals come first."""

import logging
import math
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers

import statprune
from statprune.demo import EVALUATION, MODEL
from statprune.errors import DataError, InputError, ModelError
from tests.evaluation.harness_files import Rows, questions, write_tasks
from tests.saved import letter_tokenizer
from tests.tiny import tiny_model, uneven_cut, uniform_cut

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    stories = datasets.load_dataset("json", data_files=str(EVALUATION), split="train")["text"][:16]
    return [" ".join(story.split()[:36]) for story in stories]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def rows(folder: Path, texts: list[str]) -> Rows:
    return write_tasks(folder, texts)


@pytest.fixture(scope="module")
def pruned() -> Any:
    """The shipped model with other widths in every block, its consumers not corrected."""
    return uneven_cut(transformers.AutoModelForCausalLM.from_pretrained(MODEL).eval())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(MODEL)


@torch.no_grad()
def log_likelihood(model: Any, tokenizer: Any, text: str, answer: str) -> float:
    """Of `answer` after `text`: one sequence at a time, without padding, in float64 at the end."""
    before = tokenizer(text).input_ids
    ids = tokenizer(text + answer).input_ids
    assert ids[: len(before)] == before
    logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[place - 1, ids[place]]) for place in range(len(before), len(ids)))


def by_hand(model: Any, tokenizer: Any, asked: list[tuple[str, list[str], int]]) -> dict[str, float]:
    right = {"acc": 0, "acc_norm": 0}
    for text, choices, label in asked:
        found = [log_likelihood(model, tokenizer, text, f" {choice}") for choice in choices]
        each = [value / len(choice) for value, choice in zip(found, choices, strict=True)]
        right["acc"] += max(range(len(found)), key=found.__getitem__) == label
        right["acc_norm"] += max(range(len(each)), key=each.__getitem__) == label
    return {name: count / len(asked) for name, count in right.items()}


def test_accuracies_and_perplexity_are_those_computed_by_hand(
    pruned: Any, tokenizer: Any, rows: Rows, folder: Path, texts: list[str]
) -> None:
    found = statprune.harness(pruned, ["own_both", "own_wikitext"], tokenizer=tokenizer, tasks_dir=folder)
    expected = {task: by_hand(pruned, tokenizer, questions(rows, task)) for task in ("hellaswag", "arc")}
    for task, figures in expected.items():
        for metric, figure in figures.items():
            assert found.value(f"own_{task}", metric) == pytest.approx(figure, abs=1e-12), (task, metric)
    assert len({figure for figures in expected.values() for figure in figures.values()}) > 1
    assert found.value("own_both", "acc") == pytest.approx(
        (expected["hellaswag"]["acc"] + expected["arc"]["acc"]) / 2
    )
    # The harness puts <s> in front of what begins with the tokenizer's <s>, and asks for the second, too.
    total = sum(log_likelihood(pruned, tokenizer, "", tokenizer.bos_token + text) for text in texts)
    words = sum(len(text.split()) for text in texts)
    assert found.value("own_wikitext", "word_perplexity") == pytest.approx(math.exp(-total / words), rel=1e-4)

    share = expected["arc"]["acc"]
    score = next(each for each in found.scores if (each.task, each.metric) == ("own_arc", "acc"))
    assert score.stderr == pytest.approx(math.sqrt(share * (1 - share) / (len(texts) - 1)))
    assert (score.version, score.shots, score.examples, score.higher_is_better) == ("2.0", 0, 16, True)


def test_the_shipped_model_knows_how_its_stories_end(rows: Rows, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = statprune.harness(
        MODEL,
        "own_hellaswag",
        tasks_dir=folder,
        progress=lambda stage, done, all_, facts: told.append((done, all_)),
    )
    assert found.value("own_hellaswag", "acc_norm") > 0.25, "no better than chance"
    assert told == [(number + 1, 64) for number in range(64)]
    assert found.protocol["data"] == {"own_hellaswag": "json"}
    assert found.protocol["versions"] == {"own_hellaswag": "1.5"}
    assert found.protocol["truncated"] == 0
    assert found.protocol["examples"] == {"own_hellaswag": {"original": 16, "effective": 16}}
    assert (found.protocol["dtype"], found.protocol["max_length"]) == ("float32", 512)


def test_batches_change_nothing_but_rounding(pruned: Any, tokenizer: Any, rows: Rows, folder: Path) -> None:
    options = {"tokenizer": tokenizer, "tasks_dir": folder}
    one, several = (
        statprune.harness(pruned, "own_both,own_wikitext", batch_size=size, **options).scores
        for size in (1, 5)
    )
    assert len(one) == 7
    for mine, its in zip(one, several, strict=True):
        assert (mine.task, mine.metric, mine.examples) == (its.task, its.metric, its.examples)
        assert its.value == pytest.approx(mine.value, rel=1e-4)


def test_solved_examples_limits_and_what_is_cut_off_are_told(rows: Rows, folder: Path) -> None:
    options = {"tokenizer": letter_tokenizer(), "tasks_dir": folder, "limit": 4}
    model = tiny_model("llama", max_position_embeddings=128)
    found = statprune.harness(model, "own_arc", num_fewshot=2, **options)
    assert {score.shots for score in found.scores} == {2}
    assert {score.examples for score in found.scores} == {4}
    # A letter is a token here and there are 128 positions: no question fits.
    assert found.protocol["truncated"] == sum(len(row["choices"]["text"]) for row in rows["arc"][:4])
    again = statprune.harness(model, "own_arc", num_fewshot=2, seed=7, **options)
    assert again.protocol["seeds"] == dict.fromkeys(("python", "numpy", "torch", "fewshot"), 7)
    with pytest.raises(DataError, match="longer than the 32 tokens"):
        statprune.harness(tiny_model("llama", max_position_embeddings=32), "own_arc", **options)
    single = statprune.harness(MODEL, "own_arc", tasks_dir=folder, limit=1)
    assert [score.stderr for score in single.scores] == [None, None]


def test_nothing_of_the_process_is_left_changed(
    rows: Rows, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, own = tiny_model("llama", max_position_embeddings=512).train(), letter_tokenizer()
    own.pad_token = None
    # What is read for the first time is put into a cache, with a bar.
    statprune.harness(model, "own_hellaswag", tokenizer=own, tasks_dir=folder, limit=2)
    capfd.readouterr()
    state = random.getstate(), torch.random.get_rng_state()
    logger = logging.getLogger("lm_eval")
    logs = list(logger.handlers), logger.propagate, logger.level
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    statprune.harness(model, "own_hellaswag", tokenizer=own, tasks_dir=folder, limit=2)
    assert model.training
    assert own.pad_token is None
    assert random.getstate() == state[0]
    assert torch.equal(torch.random.get_rng_state(), state[1])
    assert (list(logger.handlers), logger.propagate, logger.level) == logs
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2", "mixtral", "bart", "t5"])
def test_other_families_and_uniform_widths(family: str, rows: Rows, folder: Path) -> None:
    kind = "encoder" if family in ("bart", "t5") else "decoder"
    longer = {"gpt2": {"n_positions": 512}, "t5": {}}.get(family, {"max_position_embeddings": 512})
    model = uniform_cut(tiny_model(family, **longer))
    found = statprune.harness(
        model, "own_hellaswag", tokenizer=letter_tokenizer(kind), tasks_dir=folder, limit=3
    )
    assert 0 <= found.value("own_hellaswag", "acc") <= 1


def test_unknown_tasks_are_refused_before_the_model_is_opened(rows: Rows, folder: Path) -> None:
    with pytest.raises(InputError, match=r"'own_helaswag' is not known.*nearest are own_hellaswag"):
        statprune.harness("nowhere", "own_arc,own_helaswag", tasks_dir=folder)
    with pytest.raises(InputError, match=r"'arc_esy' is not known to the harness: the nearest are arc_easy"):
        statprune.harness("nowhere", "arc_esy")
    with pytest.raises(InputError, match="no harness task is named"):
        statprune.harness("nowhere", " , ")
    with pytest.raises(InputError, match="is no folder"):
        statprune.harness("nowhere", "arc_easy", tasks_dir=folder / "nothing")
    with pytest.raises(InputError, match=r"[Dd]uplicate task 'own_arc'.*Leave out one"):
        statprune.harness("nowhere", "own_both,own_arc", tasks_dir=folder)


def test_data_out_of_reach_are_named_before_the_model_is_opened(folder: Path, rows: Rows) -> None:
    for task, data in (
        ("hellaswag", "Rowan/hellaswag"),
        ("mmlu", "cais/mmlu"),
    ):
        with pytest.raises(
            DataError, match=rf"{task}: data set '{data}' cannot be read.*Check the connection"
        ):
            statprune.harness("nowhere", task)
    (folder / "gone.yaml").write_text(
        (folder / "arc.yaml").read_text().replace("own_arc", "own_gone").replace("arc.jsonl", "gone.jsonl")
    )
    try:
        with pytest.raises(DataError, match=r"own_gone: its data cannot be read.*gone\.jsonl"):
            statprune.harness("nowhere", "own_gone", tasks_dir=folder)
    finally:
        (folder / "gone.yaml").unlink()


@pytest.mark.parametrize("head", ["BertForMaskedLM", "BertForSequenceClassification"])
def test_an_encoder_is_refused(head: str, rows: Rows, folder: Path) -> None:
    model = tiny_model("bert", head=head)
    with pytest.raises(ModelError, match=f"{head} does not write text"):
        statprune.harness(model, "own_arc", tokenizer=letter_tokenizer("encoder"), tasks_dir=folder)
    with pytest.raises(ModelError, match="no tokenizer"):
        statprune.harness(tiny_model("llama"), "own_arc", tasks_dir=folder)
