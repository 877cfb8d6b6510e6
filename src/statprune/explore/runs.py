"""Compressions that the page has started: each a process of its own, watched by the lines it writes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from statprune.checkpoint.unfinished import check_unfinished
from statprune.errors import OutputError
from statprune.measurement import require_free

GRACE = 10.0
"""Seconds that an interrupted run has to end by itself, when the page goes."""

LAST_LINES = 20


@dataclass(frozen=True)
class Seen:
    """What is known of a run at this moment.

    Attributes:
        out: the folder it writes.
        running: whether it still goes on.
        cancelled: whether it was asked to end.
        report: the last line of progress, as `--progress json` writes it; empty before the first.
        code: its exit code; None while it runs.
        message: why it failed, or what it said when it was interrupted; empty where it ended well.
        record: what `--json` printed; None unless it ended well.
    """

    out: Path
    running: bool
    cancelled: bool
    report: dict[str, Any]
    code: int | None = None
    message: str = ""
    record: dict[str, Any] | None = None


class Run:
    """One compression in a process of its own, which outlives whoever looks at it."""

    def __init__(self, arguments: Sequence[str], out: Path) -> None:
        self.out = out
        self._report: dict[str, Any] = {}
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._printed = ""
        self._cancelled = False
        # In a session of its own: an interrupt at the terminal reaches it only through `interrupt`.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "statprune", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=read, args=(pipe,), daemon=True)
            for read, pipe in (
                (self._read_stderr, self._process.stderr),
                (self._read_stdout, self._process.stdout),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read_stderr(self, pipe: IO[str]) -> None:
        for line in pipe:
            try:
                content = json.loads(line)
            except ValueError:
                content = None
            if isinstance(content, dict) and "stage" in content:
                self._report = content
            elif line.strip():
                self._lines.append(line.strip())

    def _read_stdout(self, pipe: IO[str]) -> None:
        self._printed = pipe.read()

    def interrupt(self) -> None:
        """End it as Ctrl-C does: what is done is kept for `--resume`; a second time it is ended at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if self._cancelled else signal.SIGTERM)
            self._cancelled = True

    def wait(self, seconds: float | None = None) -> None:
        """Return when it has ended and all it wrote is read, or after so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        for reader in self._readers:
            reader.join(seconds)

    def seen(self) -> Seen:
        """What is known now."""
        code = self._process.poll()
        if code is None or any(reader.is_alive() for reader in self._readers):
            return Seen(self.out, True, self._cancelled, self._report)
        printed = self._parsed()
        if code == 0:
            return Seen(self.out, False, self._cancelled, self._report, code, "", printed)
        return Seen(self.out, False, self._cancelled, self._report, code, self._why(code, printed))

    def _parsed(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self._printed)
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    def _why(self, code: int, printed: dict[str, Any] | None) -> str:
        told = (printed or {}).get("error")
        if isinstance(told, dict):
            return str(told.get("message"))
        if code < 0:
            return f"it was ended by signal {-code} ({signal.Signals(-code).name})."
        return self._lines[-1] if self._lines else f"it ended with exit code {code} and said nothing."


class Runs:
    """All compressions of one page's server: so that none writes where another does, and all end with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[Run] = []

    def start(self, command: Sequence[str], out: Path, *, resume: bool = False) -> int:
        """Start `statprune ...`, as a list of words, and return its number.

        Raises:
            OutputError: `out` exists, cannot be made, is being written, or an unfinished run lies there and
                `resume` does not ask for it.
        """
        with self._lock:
            for run in self._runs:
                if _same(run.out, out) and run.seen().running:
                    raise OutputError(
                        f"{out} is being written by a compression that goes on. Give another folder."
                    )
            require_free(out)
            check_unfinished(out, resume=resume)
            self._runs.append(Run([*command[1:], "--progress", "json", "--json"], out))
            return len(self._runs) - 1

    def __getitem__(self, number: int) -> Run:
        return self._runs[number]

    def going_on(self) -> list[tuple[int, Seen]]:
        """Those that have not ended, with their numbers."""
        found = [(number, run.seen()) for number, run in enumerate(list(self._runs))]
        return [(number, seen) for number, seen in found if seen.running]

    def end(self) -> list[Seen]:
        """Interrupt all that go on, wait for them, and return what each said."""
        left = [self._runs[number] for number, _ in self.going_on()]
        for run in left:
            run.interrupt()
        for run in left:
            run.wait(GRACE)
            if run.seen().running:
                run.interrupt()
                run.wait(GRACE)
        return [run.seen() for run in left]


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
