"""`statprune plan`, and `compress --from`."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_commands import one_object


@pytest.fixture
def measured(command: Command, world: Path, tmp_path: Path) -> Path:
    out = tmp_path / "measured"
    ended = command(
        "plan", world / "llama", "--data", world / "text.txt", "--out", out, "--samples", 12, "--seq-len", 32
    )
    assert ended.code == 0
    assert ended.err == ""
    assert "Budgets of params" in ended.out
    assert f"statprune compress --from {out} --keep SHARE" in ended.out.replace("\n", "")
    return out


def test_a_measurement_answers_and_compresses(command: Command, measured: Path, tmp_path: Path) -> None:
    ended = command(
        "plan", "--from", measured, "--keep", 0.9, "--keep", 0.8, "--keep", 0.01, "--of", "macs", "--json",
        "--floor", "attention=2",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    answers = one_object(ended.out)["answers"]
    assert [answer["keep"] for answer in answers] == [0.9, 0.8, 0.01]
    assert answers[2]["plan"] is None
    assert answers[1]["plan"]["widths"]["blocks.0.attention"] == 2
    made = command(
        "compress", "--from", measured, "--keep", 0.8, "--of", "macs", "--floor", "attention=2",
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert (made.code, made.err) == (0, "")
    record = one_object(made.out)
    assert record["plan"]["widths"] == answers[1]["plan"]["widths"]
    assert record["trace"]["predicted"] == answers[1]["predicted"]
    assert record["trace"]["divergence"] > 0
    told = command("plan", "--from", measured, "--keep", 0.01)
    assert told.code == 0
    assert "cannot be reached" in told.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("plan", "no model; give model"),
        ("plan {model}", "no data; give data"),
        ("plan --from nowhere", "nowhere holds no measurement.json"),
        ("plan --from {measured} --data x", "both data and a measurement"),
        ("plan --from {measured} --of time", "of is 'time'; choose one of params, macs, latency"),
        ("plan --from {measured} --keep 2", "keep is 2.0"),
        ("plan --from {measured} --floor attention", "'attention' is not NAME=UNITS"),
        ("plan --from {measured} --floor attention=2 --floor attention=1", "names it again"),
        ("plan --from {measured} --pin blocks.9.attention=1", "'blocks.9.attention' is no site"),
        ("plan --from {measured} --samples 64", "samples was settled"),
        ("plan --from {measured} --seed 0", "seed was settled"),
        ("plan --from {measured} --protect 7", "protected block 7"),
        ("compress --from {measured} --keep 0.5 --out {out} --seed 3", "seed was settled"),
        ("compress --from {measured} --keep 0.5 --out {out} --plan p.json", "both keep"),
        ("compress {model} --data x --keep 0.5 --out {out} --method stat --search", "method stat takes no"),
        ("compress {model} --data x --keep 0.5 --out {out} --backend qr", "backend qr goes with method stat"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: str, says: str, command: Command, world: Path, measured: Path, tmp_path: Path
) -> None:
    names = {"model": world / "llama", "measured": measured, "out": tmp_path / "out"}
    ended = command(*(part.format(**names) for part in arguments.split()))
    assert ended.code == 2
    assert says in ended.err.replace("\n", " ")
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()
