"""Pages of several runs, and of a measurement."""

import json
from pathlib import Path

import pytest

import statprune
from statprune.engine.divergence import NUMBERS
from tests.reported.left_behind import accuracy, gate, leave, perplexity, record, result, results
from tests.reported.test_report import Parsed


def words(written: statprune.Reported) -> str:
    return " ".join(Parsed(Path(written.out).read_text(encoding="utf-8")).text.split())


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = [leave(tmp_path / name, record(seed=seed), results()) for seed, name in enumerate("ab")]
    runs.append(leave(tmp_path / "other" / "a", record(seed=2)))
    written = statprune.report(*runs, out=tmp_path / "page.html")
    said = words(written)
    assert "a (1), b, a (2)" in said
    kept = [json.loads((run / "statprune.json").read_text())["parameters"] for run in runs]
    cells = " ".join(f"{each['kept']:,} ({each['kept'] / each['dense']:.1%})" for each in kept)
    assert f"parameters, whole model {cells}" in said
    assert "perplexity of test.txt 138.20 (+5.7%) 138.20 (+5.7%) not recorded" in said
    assert "accuracy of glue/sst2 85.20 (-0.47) 85.20 (-0.47) not recorded" in said
    assert "reading a prompt, tokens/s 204.80 (1.60 x dense) 204.80 (1.60 x dense) not recorded" in said
    assert "damage measured, nats a choice 0.091 0.091 0.091" in said
    assert written.charts == 5  # two metrics, damage, and two parts of a block


def test_numbers_by_other_protocols_have_rows_of_their_own(tmp_path: Path) -> None:
    runs = [
        leave(tmp_path / "a", record(), [result("evaluation", "this", perplexity(10.0, seq_len=64))]),
        leave(tmp_path / "b", record(), [result("evaluation", "this", perplexity(20.0, seq_len=32))]),
    ]
    said = words(statprune.report(*runs, out=tmp_path / "page.html"))
    assert "perplexity of test.txt 10.00 not recorded" in said
    assert "perplexity of test.txt, protocol 2 not recorded 20.00" in said


def test_damage_is_told_in_the_unit_that_it_was_measured_in(tmp_path: Path) -> None:
    """Of scores no divergence is measured; such a run's damage stands in no row with another's."""
    of_scores = record(seed=1)
    of_scores["trace"]["damage"] = NUMBERS
    runs = [leave(tmp_path / "a", record()), leave(tmp_path / "b", of_scores)]
    said = words(statprune.report(*runs, out=tmp_path / "page.html"))
    assert "damage measured, nats a choice 0.091 not recorded" in said
    assert "damage measured, relative squared error not recorded 0.091" in said
    alone = words(statprune.report(runs[1], out=tmp_path / "alone.html"))
    assert "relative squared error; 0.132 predicted" in alone
    assert "nats" not in alone


def test_what_makes_runs_hard_to_compare_is_said(tmp_path: Path) -> None:
    runs = [leave(tmp_path / "a", record()), leave(tmp_path / "b", record(model="another"))]
    said = words(statprune.report(*runs, out=tmp_path / "page.html"))
    assert "The runs are of different models: another; tiny-llama." in said
    assert "No evaluation of these runs is recorded" in said


@pytest.mark.parametrize("number", [9])
def test_more_runs_than_colours(tmp_path: Path, number: int) -> None:
    runs = [leave(tmp_path / f"run{each}", record(seed=each)) for each in range(number)]
    written = statprune.report(*runs, out=tmp_path / "page.html", figures=tmp_path / "figures")
    assert f"{number} runs compared" in words(written)


def test_a_gate_and_an_evaluation_by_one_name(tmp_path: Path) -> None:
    recorded = [result("evaluation", "this", accuracy(76.0, task="glue/mrpc"))]
    said = words(statprune.report(leave(tmp_path / "run", record(gate=gate()), recorded)))
    assert "accuracy of glue/mrpc 79.50 77.50 -2.00" in said
    assert "accuracy of glue/mrpc not recorded 76.00" in said


def measured(folder: Path) -> Path:
    """What `plan` leaves: squared errors at every width, and damage at some."""
    folder.mkdir()
    curves = {
        f"blocks.{block}.{part}": {
            "error": [(1 - width / units) ** 2 for width in range(units + 1)],
            "measured": [[units // 4, 0.2], [units // 2, 0.05]],
        }
        for block in range(2)
        for part, units in (("attention", 8), ("feed_forward", 400))
    }
    content = {"format": 1, "model": "/private/tiny", "fingerprint": "abc123", "context": 64, "latency": None}
    content |= {"about": {"torch": "2.13.0", "notes": ["a note"]}, "data": {"samples": 16}, "curves": curves}
    (folder / "measurement.json").write_text(json.dumps(content))
    return folder


def test_a_measurement_shows_curves_and_damage(tmp_path: Path) -> None:
    written = statprune.report(measured(tmp_path / "measured"))
    said = words(written)
    assert written.charts == 3
    assert "tiny was measured once; nothing is pruned yet. 4 sites can be narrowed." in said
    assert "/private" not in said
    assert "a note" in said
    assert "abc123" in said
    assert "attention 4 of 8 0.5 0.05" in said  # the root of the squared error, and the damage measured there
    assert "50.0% 0.2" in said  # four sites, 0.05 each
    assert "statprune plan --from measured --keep 0.8" in said
