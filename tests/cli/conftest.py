"""The command line in this process, and a folder of models and data that it can and cannot use."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest
from transformers.utils import logging

from statprune.cli import progress
from statprune.cli.main import run
from tests.cli.world import build_world


@dataclass(frozen=True)
class Ended:
    """A command's exit code and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run `statprune ARGUMENTS`; the libraries' verbosity is put back afterwards.

    However busy the machine, no run is so long that it tells lines of progress.
    """
    monkeypatch.setattr(progress, "SILENT", 86_400.0)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield call
    for number, handler in signals.items():  # an interrupted command leaves them ignored
        signal.signal(number, handler)
    logging.set_verbosity(verbosity)
    if bars:
        logging.enable_progress_bar()
    datasets.enable_progress_bars()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"))
