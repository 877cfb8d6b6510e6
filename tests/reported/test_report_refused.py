"""What `report` refuses: one line with place and remedy, exit code 2, and nothing written."""

import json
from pathlib import Path

import pytest

import statprune
from statprune.errors import InputError, OutputError
from tests.reported.left_behind import gate, leave, record, result


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "statprune.json cannot be read"),
        ("[1]", "is no record of a run"),
        ('{"plan": {}, "model": "m"}', "'units' is to hold whole numbers by site, and is 'None'"),
        (
            '{"plan": {"widths": {"a": "b"}}, "units": {"a": 2}, "model": "m"}',
            "'plan.widths' is to hold",
        ),
        (
            '{"plan": {"widths": [1]}, "units": {"a": 2}, "model": "m"}',
            "'plan.widths' is to hold",
        ),
        ("[" * 100_000, "statprune.json cannot be read"),
    ],
)
def test_a_record_that_is_none(tmp_path: Path, text: str, told: str) -> None:
    folder = leave(tmp_path / "run", {})
    (folder / "statprune.json").write_text(text)
    with pytest.raises(InputError) as refused:
        statprune.report(folder)
    message = str(refused.value)
    assert told in message
    assert str(folder) in message
    assert "\n" not in message
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("missing", [True, False])
def test_a_folder_that_holds_none(tmp_path: Path, missing: bool) -> None:
    folder = tmp_path / "nothing"
    if not missing:
        folder.mkdir()
    with pytest.raises(InputError, match=r"nothing .*statprune compress --out"):
        statprune.report(folder)


def test_a_result_that_cannot_be_read(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", record(), [result("evaluation", "this", {})])
    broken = folder / "results" / "002-evaluation-this.json"
    broken.write_text("{")
    with pytest.raises(InputError, match=r"002-evaluation-this.json cannot be read.*Remove it"):
        statprune.report(folder)


def test_a_measurement_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "measurement.json").write_text(json.dumps({"format": 1, "curves": [1]}))
    with pytest.raises(InputError, match=r"measurement.json is no measurement: 'curves'"):
        statprune.report(tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", record(blocks=1))
    page = folder / "report.html"
    page.write_text("mine")
    with pytest.raises(OutputError, match=r"report.html exists.*Give another name \(--out\)"):
        statprune.report(folder)
    (tmp_path / "figures").mkdir()
    with pytest.raises(OutputError, match="figures exists"):
        statprune.report(folder, out=tmp_path / "other.html", figures=tmp_path / "figures")
    assert page.read_text() == "mine"
    assert list((tmp_path / "figures").iterdir()) == []
    assert not (tmp_path / "other.html").exists()


def test_the_page_and_the_figures_have_two_names(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", record(blocks=1))
    with pytest.raises(InputError, match="give two names"):
        statprune.report(folder, out=tmp_path / "x", figures=tmp_path / "x")


def test_a_comparison_needs_a_name_and_runs(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", record(blocks=1))
    with pytest.raises(InputError, match=r"2 folders are compared.*--out"):
        statprune.report(folder, folder)
    with pytest.raises(InputError, match="no folder is given"):
        statprune.report()
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "measurement.json").write_text(json.dumps({"format": 1, "curves": {}}))
    with pytest.raises(InputError, match=r"measured is a measurement, and only runs can be compared"):
        statprune.report(folder, tmp_path / "measured", out=tmp_path / "page.html")
    with pytest.raises(OutputError, match="is no folder"):
        statprune.report(folder, out=tmp_path / "nowhere" / "page.html")


@pytest.mark.parametrize("spoilt", [None, "x", [[1]], {}, 10**400])
def test_a_spoilt_part_is_left_out_and_the_rest_is_shown(tmp_path: Path, spoilt: object) -> None:
    content = record(blocks=1, gate=gate())
    for part, name in (
        ("gate", "trials"),
        ("gate", "max_drop"),
        ("trace", "seconds"),
        ("trace", "predicted"),
    ):
        content[part][name] = spoilt
    content |= {name: spoilt for name in ("curves", "data", "versions", "notes", "bytes", "recipe")}
    content["trace"]["sites"][0]["site"] = spoilt
    folder = leave(tmp_path / "run", content, [result("benchmark", "this", {"pruned": spoilt})])
    page = Path(statprune.report(folder).out).read_text()
    assert f"{content['parameters']['kept']:,}" in page
