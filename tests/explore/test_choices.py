"""What the page is told is what `compress` makes; what cannot be is said in words."""

import shlex
from pathlib import Path

import pytest

import statprune
from statprune.errors import InputError
from statprune.explore import wording
from statprune.explore.choices import Asked, added, command, opened, rows, told

ASKED = {
    "plain": Asked(0.6),
    "macs, uniform": Asked(0.7, "macs", "uniform"),
    "latency": Asked(0.8, "latency"),
    "restricted": Asked(
        0.9, multiple=4, floors="attention = 2", pins="blocks.1.feed_forward=13", protect=(0,)
    ),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_what_is_told_is_what_compress_makes(measured: Path, asked: Asked) -> None:
    explored = opened(measured / "of-llama")
    answer = told(explored, asked)
    assert answer.refused == ""
    recipe = answer.recipe.to_json()
    options = {
        name: recipe[name] for name in ("keep", "of", "widths", "multiple", "floors", "pins", "protect")
    }
    made = statprune.compress(measured=measured / "of-llama", **options)
    assert made.plan.widths == answer.plan.widths
    assert made.trace.predicted == pytest.approx(answer.predicted)
    assert made.record["parameters"] == {"dense": explored.size.parameters, "kept": answer.size.parameters}
    assert made.record["bytes"] == {"dense": explored.size.bytes, "kept": answer.size.bytes}
    kept = {of: (dense, kept) for of, dense, kept in answer.costs}
    for of in ("params", "macs"):
        assert kept[of] == (made.record["cost"][of]["dense"], made.record["cost"][of]["kept"])


def test_the_command_is_the_whole_of_what_was_asked(measured: Path) -> None:
    explored = opened(measured / "of-llama")
    answer = told(explored, ASKED["restricted"])
    line = command(explored, answer.recipe, "a folder's; name", resume=True)
    assert shlex.split(line) == [
        "statprune", "compress", "--from", str(measured / "of-llama"), "--keep", "0.9",
        "--floor=attention=2", "--protect=0", "--pin=blocks.1.feed_forward=13", "--multiple", "4",
        "--out", "a folder's; name", "--resume",
    ]  # fmt: skip
    assert command(explored, told(explored, Asked(0.6)).recipe).endswith("--keep 0.6 --out smaller")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Asked(0.01), "cannot be reached: with one head"),
        (Asked(0.6, floors="attention=9"), "cannot keep 9 units"),
        (Asked(0.6, floors="attention"), "floor 'attention' is not NAME=UNITS"),
        (Asked(0.6, pins="blocks.9.attention=1"), "is no site of this model"),
        (Asked(0.6, pins="attention=1 attention=2"), "or names it again"),
        (Asked(0.9, floors="attention=2", pins="blocks.0.attention=1"), "below its floor"),
        (Asked(0.6, protect=(0, 1, 2)), "cannot be reached"),
        (Asked(0.6, multiple=None), "give a whole number"),
        (Asked(0.6, multiple=0), "give a whole number"),
        (
            Asked(0.9, widths="uniform", pins="blocks.0.feed_forward=8\nblocks.1.feed_forward=16"),
            "no width is legal",
        ),
    ],
)
def test_what_cannot_be_is_said_in_words(measured: Path, asked: Asked, says: str) -> None:
    explored = opened(measured / "of-llama")
    answer = told(explored, asked)
    assert says in answer.refused
    assert (answer.plan, answer.recipe, answer.size) == (None, None, None)
    assert 'role="alert"' in wording.numbers(answer, explored)
    assert wording.damage(answer) == wording.widths(answer, explored) == ""


def test_latency_is_offered_where_it_was_measured(measured: Path) -> None:
    assert opened(measured / "of-llama").budgets == ["params", "macs", "latency"]
    bert = opened(measured / "of-bert")
    assert bert.budgets == ["params", "macs"]
    assert "latency was not measured" in told(bert, Asked(0.8, "latency")).refused
    assert "is an encoder" in bert.mute


def test_a_folder_that_is_none_is_refused(measured: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no measurement"):
        opened(tmp_path)
    (tmp_path / "measurement.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        opened(tmp_path)


def test_limits_are_added_replaced_and_kept_apart() -> None:
    once = added("attention=2, blocks.0.attention = 1", "blocks.0.attention", 3.0)
    assert once == "attention=2\nblocks.0.attention=3"
    assert added(once, "blocks.0.attention", None) == "attention=2"
    assert added("", None, 3) == ""


def test_what_is_shown_says_every_width_and_escapes_names(measured: Path) -> None:
    explored = opened(measured / "of-llama")
    answer = told(explored, Asked(0.6))
    shown = wording.widths(answer, explored)
    for part, block, kept, units, name in rows(answer, explored):
        assert f"block {block}: {kept} of {units}" in shown
        assert f"<th scope='row'>{name}</th><td>{kept}</td><td>{units}</td>" in shown
        assert part in name
    assert shown.count("<svg") == wording.damage(answer).count("<svg") + 1 == 2
    assert "a perplexity about" in wording.numbers(answer, explored)
    assert "<script>" not in wording.refused("<script>")
