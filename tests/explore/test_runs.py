"""Compressions as processes: watched, cancelled, refused, and none of them killed by whoever looks away."""

import time
from pathlib import Path

import pytest

from statprune.errors import OutputError
from statprune.explore import runs as started
from statprune.explore import wording
from statprune.explore.choices import Asked, opened, told, words
from statprune.explore.runs import Run, Runs, Seen

SLOW = "import sys, time; sys.stderr.write('a warning\\n'); time.sleep(60)"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run is a process that waits a minute and ends when it is interrupted."""
    popen = started.subprocess.Popen

    def waits(words: list[str], **options: object) -> object:
        return popen([words[0], "-c", SLOW], **options)

    monkeypatch.setattr(started.subprocess, "Popen", waits)


def test_a_compression_is_watched_to_its_end(measured: Path, tmp_path: Path) -> None:
    explored, runs = opened(measured / "of-llama"), Runs()
    out = tmp_path / "out"
    made = words(explored, told(explored, Asked(0.6)).recipe, str(out))
    number = runs.start(made, out)
    reports, deadline = [], time.monotonic() + 120
    while runs[number].seen().running and time.monotonic() < deadline:
        reports.append(runs[number].seen())
        time.sleep(0.02)
    ended = runs[number].seen()
    assert (ended.running, ended.code, ended.message) == (False, 0, "")
    assert ended.report["stage"] == "save"
    assert ended.record["out"] == str(out)
    assert (out / "config.json").exists()
    assert any(each.report.get("stage") for each in reports)
    shown = wording.progress(ended)
    assert str(out) in shown
    assert "damage measured" in shown
    with pytest.raises(OutputError, match="exists already"):
        runs.start(made, out)
    (tmp_path / "again.unfinished").mkdir()
    with pytest.raises(OutputError, match="--resume"):
        runs.start(made, tmp_path / "again")


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    run = Run(
        ["compress", "--from", str(tmp_path / "none"), "--keep", "0.5", "--out", "x", "--json"],
        tmp_path / "x",
    )
    run.wait(120)
    seen = run.seen()
    assert seen.code == 2
    assert "holds no measurement.json" in seen.message
    assert "Failed, exit code 2: " in wording.progress(seen)


@pytest.mark.usefixtures("slow")
def test_two_folders_run_at_once_one_folder_once_and_all_end_with_the_server(tmp_path: Path) -> None:
    runs = Runs()
    one, two = (runs.start(["statprune"], tmp_path / name) for name in ("one", "two"))
    with pytest.raises(OutputError, match="is being written"):
        runs.start(["statprune"], tmp_path / "two" / ".." / "one")
    assert [number for number, _ in runs.going_on()] == [one, two]
    runs[one].interrupt()
    runs[one].wait(30)
    ended = runs[one].seen()
    assert (ended.running, ended.cancelled) == (False, True)
    assert "Cancelled: " in wording.progress(ended)
    assert runs[two].seen().running
    runs.start(["statprune"], tmp_path / "one")
    assert len(runs.end()) == 2
    assert runs.going_on() == []


def test_progress_is_told_as_on_the_command_line() -> None:
    report = {
        "stage": "refit", "block": 3, "blocks": 12, "site": "blocks.2.feed_forward", "error": 0.0421,
        "seconds_left": 90.0, "resident_bytes": 10**9, "peak_bytes": 2 * 10**9, "device_peak_bytes": None,
    }  # fmt: skip
    shown = wording.progress(Seen(Path("out<"), True, False, report))
    for part in (
        "out&lt;", "choosing and refitting", "block 3 of 12", "error of blocks.2.feed_forward 4.21%",
        "90 s left", "memory 1 GB, peak 2 GB", 'max="12" value="3"',
    ):  # fmt: skip
        assert part in shown
