"""Results written into a card that is there: between our lines and in model-index, and nowhere else."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from statprune.card.card import BEGIN, END
from statprune.card.renew import renew
from tests.card.records import harness, keep, perplexity, record, task

METADATA = "---\nlicense: mit  # mine\ntags: [a, b]\n---\n"
CARD = f"{METADATA}\n# Mine\n\n{BEGIN}\nold\n{END}\n\nAlso mine, * as it is.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    (made / "statprune.json").write_text(json.dumps(record()))
    (made / "README.md").write_text(CARD)
    return made


def text_of(folder: Path) -> str:
    return (folder / "README.md").read_bytes().decode()


def test_what_the_user_wrote_stays_byte_for_byte(folder: Path) -> None:
    keep(folder, "evaluation", perplexity(12.5))
    assert renew(folder) is None
    text = text_of(folder)
    assert text.startswith("---\nlicense: mit  # mine\ntags: [a, b]\nmodel-index:\n- name: made\n")
    before, after = CARD.split("old")
    assert before.split("---\n")[2] in text
    assert text.endswith(after)
    assert "old" not in text
    assert "| 1 | perplexity | `text.jsonl` | perplexity | 12.5000 | not measured |" in text
    assert renew(folder) is None
    assert text_of(folder) == text


def test_numbers_of_both_models_stand_side_by_side_and_the_last_counts(folder: Path) -> None:
    for value in (13.0, 12.5):
        keep(folder, "evaluation", perplexity(value))
    keep(folder, "evaluation", perplexity(10.0), of="dense")
    keep(folder, "evaluation", perplexity(11.0, window=64), of="dense")
    keep(folder, "evaluation", task("glue/sst2", accuracy=85.5, f1=84.25))
    keep(folder, "harness", harness(0.61))
    assert renew(folder) is None
    text = text_of(folder)
    assert "| `text.jsonl` | perplexity | 12.5000 | 10.0000 |" in text
    assert "| `text.jsonl` | perplexity | not measured | 11.0000 |" in text
    assert "| `nyu-mll/glue` | accuracy | 85.5000 | not measured |" in text
    assert "| `arc_easy` | acc | 0.6100 ± 0.0100 | not measured |" in text
    assert "13.0000" not in text
    found = {each.metric_type: each for each in ModelCard(text).data.eval_results}
    assert {name: each.metric_value for name, each in found.items()} == {
        "perplexity": 12.5,
        "accuracy": 85.5,
        "f1": 84.25,
        "acc": 0.61,
    }
    accuracy = found["accuracy"]
    place = (accuracy.task_type, accuracy.dataset_type, accuracy.dataset_config, accuracy.dataset_split)
    assert place == ("text-classification", "nyu-mll/glue", "sst2", "validation")
    assert found["perplexity"].dataset_type == "custom"


def test_results_that_others_put_into_the_metadata_stay(folder: Path) -> None:
    theirs = (
        "model-index:\n- name: Theirs\n  results:\n  - task: {type: text-generation}\n"
        "    dataset: {name: D, type: d}\n    metrics: [{type: acc, value: 0.5}]\n# behind\nlanguage: en\n"
    )
    (folder / "README.md").write_text(CARD.replace("tags: [a, b]\n", theirs))
    keep(folder, "evaluation", perplexity(12.5))
    for _ in range(2):
        assert renew(folder) is None
        data = ModelCard(text_of(folder)).data
        assert data.model_name == "Theirs"
        assert [each.metric_value for each in data.eval_results] == [0.5, 12.5]
        assert "\n# behind\nlanguage: en\n---\n" in text_of(folder)


def test_what_is_not_finite_stays_out_of_the_metadata(folder: Path) -> None:
    keep(folder, "evaluation", perplexity(float("nan")))
    assert renew(folder) is None
    assert "| nan |" in text_of(folder)
    assert "model-index" not in text_of(folder)


def test_line_ends_of_windows_stay(folder: Path) -> None:
    (folder / "README.md").write_bytes(CARD.replace("\n", "\r\n").encode())
    keep(folder, "evaluation", perplexity(12.5))
    assert renew(folder) is None
    text = text_of(folder)
    assert "\n" not in text.replace("\r\n", "")
    assert ModelCard(text).data.eval_results[0].metric_value == 12.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# All mine\n", "our two lines"),
        (CARD.replace(END, ""), "our two lines"),
        (CARD + BEGIN, "our two lines"),
        (f"{END}\n{BEGIN}\n", "our two lines"),
        (CARD.replace("tags: [a, b]", "tags: [a"), "its metadata"),
        (CARD.replace("---\n", ""), "its metadata"),
        (CARD.replace("tags: [a, b]", "model-index: 7"), "its metadata"),
    ],
)
def test_a_card_that_is_not_ours_any_more_is_left_alone(text: str, why: str, folder: Path) -> None:
    (folder / "README.md").write_text(text)
    keep(folder, "evaluation", perplexity(12.5))
    told = renew(folder)
    assert told is not None
    assert why in told
    assert text_of(folder) == text
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "results", "statprune.json"]


def test_a_card_that_was_removed_is_not_made_again(folder: Path) -> None:
    (folder / "README.md").unlink()
    keep(folder, "evaluation", perplexity(12.5))
    assert "is not there" in str(renew(folder))
    assert not (folder / "README.md").exists()


def test_hostile_names_of_results_show_and_do_nothing(folder: Path) -> None:
    name = "a|b`c\n---\n<script>x</script>: [y](z)"
    result = perplexity(12.5)
    result["protocol"]["data"] = {"source": name, "kind": "file"}
    result["protocol"]["loss"] = f"{END} <img> | *x*"
    keep(folder, "evaluation", result)
    for _ in range(2):
        assert renew(folder) is None
        text = text_of(folder)
        assert text.count(END) == 1
        assert ModelCard(text).data.eval_results[0].dataset_name == name
        row = next(line for line in text.splitlines() if line.startswith("| 1 |"))
        assert "``a\\|b`c --- <script>x</script>: [y](z)``" in row
        assert "<img>" not in text
