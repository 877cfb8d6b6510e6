"""Progress on the command line: JSON lines, a log file, quiet, and bars of any width."""

import json
import warnings
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from statprune.cli.progress import Bars, Lines, LogFile, time_left
from statprune.engine.progress import Facts, Stage, Work
from statprune.errors import StatpruneWarning
from statprune.reports import Memory, Report, Reporter, memory_in_use
from tests.cli.conftest import Command
from tests.cli.test_commands import COMPRESS, one_object

KEYS = {
    "stage", "block", "blocks", "site", "error", "seconds", "seconds_left", "resident_bytes", "peak_bytes",
    "device_peak_bytes",
}  # fmt: skip


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def compress(world: Path, out: Path) -> tuple[object, ...]:
    return ("compress", world / "llama", "--data", world / "text.txt", "--keep", 0.5, "--out", out, *COMPRESS)


def test_json_lines_on_stderr_leave_stdout_to_the_result(
    command: Command, world: Path, tmp_path: Path
) -> None:
    ended = command(*compress(world, tmp_path / "out"), "--json", "--progress", "json")
    assert ended.code == 0
    told = objects(ended.err)
    assert all(set(each) == KEYS for each in told)
    places = [(each["stage"], each["block"], each["blocks"]) for each in told]
    walks = [[(stage, done, 3) for done in (1, 2, 3)] for stage in ("survey", "refit")]
    once = [(stage, 1, 1) for stage in ("prepare", "compare", "choose", "save")]
    assert places == [once[0], *walks[0], once[1], once[2], *walks[1], once[1], once[3]]
    assert all(isinstance(each["seconds_left"], float) for each in told)
    assert told[-1]["seconds_left"] == 0
    errors = {site["site"]: site["relative_error"] for site in one_object(ended.out)["trace"]["sites"]}
    assert told[-1]["site"] == "blocks.2.feed_forward"
    assert told[-1]["error"] == pytest.approx(errors["blocks.2.feed_forward"])


def test_a_log_grows_and_the_run_is_quiet(command: Command, world: Path, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text('{"mine": 1}\n')
    lengths = []
    for number in range(2):
        ended = command(*compress(world, tmp_path / f"out{number}"), "--quiet", "--log-file", log)
        assert (ended.code, ended.err) == (0, "")
        assert "saved and verified" in ended.out
        lengths.append(len(objects(log.read_text())))
    assert objects(log.read_text())[0] == {"mine": 1}
    assert lengths[1] - 1 == 2 * (lengths[0] - 1) > 2
    assert all(set(each) == KEYS | {"time"} for each in objects(log.read_text())[1:])


def test_method_stat_tells_its_two_walks(command: Command, world: Path, tmp_path: Path) -> None:
    ended = command(*compress(world, tmp_path / "out"), "--method", "stat", "--json", "--progress", "json")
    stages = {each["stage"]: each["blocks"] for each in objects(ended.err)}
    assert list(stages) == ["prepare", "measure", "prune", "save"]
    assert stages["measure"] == 3


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_an_evaluation_counts_its_samples(command: Command, world: Path, model: str) -> None:
    ended = command(
        "evaluate", world / model, "--data", world / "text.txt", "--seq-len", 32,
        "--json", "--progress", "json",
    )  # fmt: skip
    last = objects(ended.err)[-1]
    one_object(ended.out)
    assert (last["stage"], last["block"], last["seconds_left"]) == ("evaluate", last["blocks"], 0)


def report(seconds: float, left: float | None = 90.0) -> Report:
    memory = Memory(resident=10**9, peak=2 * 10**9)
    return Report("refit", 3, 12, "blocks.2.feed_forward", 0.0421, seconds, left, memory)


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    show = Lines()
    for seconds in (1.0, 5.0, 11.0, 12.0, 19.0, 22.0):
        show(report(seconds))
    written = capsys.readouterr().err
    assert written.count("\n") == 2
    assert written.splitlines()[0] == (
        "choosing and refitting: block 3 of 12, 11 s so far, 90 s left, blocks.2.feed_forward 4.21%, "
        "memory 1 GB, peak 2 GB"
    )


@pytest.mark.parametrize("width", [40, 80, 200])
def test_bars_fit_the_terminal(width: int) -> None:
    screen = StringIO()
    console = Console(file=screen, width=width, height=20, force_terminal=True, color_system=None)
    reporter = Reporter()
    bars = Bars(reporter, console)
    reporter.listeners.append(bars.take)
    work = (Work(products=1e12),) * 12
    reporter("prepare", 1, 1, Facts(ahead=[Stage("survey", work), Stage("refit", work)], device="cpu"))
    reporter("survey", 1, 12, Facts())
    reporter("refit", 1, 12, Facts("blocks.10.cross_attention", 0.5))
    bars.stop()
    with console.capture() as captured:
        console.print(bars.get_renderable())
    lines = captured.get().splitlines()
    assert len(lines) == 3
    assert max(len(line) for line in lines) <= width
    assert lines[0].startswith("all")
    assert lines[2].startswith("blocks.10.cross_attention 50.00%")
    if width > 40:
        assert "choosing and refitting" in lines[1]
        assert "1/12" in lines[1]


def test_a_full_disk_ends_the_log_and_not_the_run() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no full disk at hand")
    log = LogFile(full)
    with pytest.warns(StatpruneWarning, match="the log ends here"):
        log(report(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log(report(2.0))
        log.close()


@pytest.mark.parametrize(
    ("seconds", "told"), [(None, ""), (7.2, "7 s left"), (150, "2 min left"), (9000, "2.5 h left")]
)
def test_time_left_in_words(seconds: float | None, told: str) -> None:
    assert time_left(seconds) == told


def test_memory_is_that_of_this_process() -> None:
    held = bytearray(64 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    found = memory_in_use("cpu")
    assert found.device is None
    assert found.peak is not None
    assert found.peak > len(held)
    if found.resident is not None:
        assert len(held) < found.resident
