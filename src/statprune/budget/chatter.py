"""HiGHS now and then prints a line of its own to stdout, whatever it is told; here it does not get there.

Source of the line: https://github.com/jump-dev/HiGHS.jl/issues/312
"""

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from threading import Lock

LINE = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();"

STDOUT = 1

_ONE = Lock()
"""There is one stdout: of threads that come at once the first keeps it back."""


@contextmanager
def without_chatter() -> Iterator[None]:
    """Within it stdout is kept back; afterwards what was printed comes, without HiGHS's line.

    That is the process's stdout, so what other threads print meanwhile comes with it; what a process that
    they start prints later does not. Where there is no stdout, where a file to keep it in cannot be made, and
    in all threads but one, nothing is done.
    """
    with ExitStack() as around:
        aside = _aside(around)
        if aside is None:
            yield
            return
        _flush()
        os.dup2(aside.kept, STDOUT)
        try:
            yield
        finally:
            _flush()
            os.dup2(aside.stdout, STDOUT)
            with suppress(OSError):  # nobody reads it any more
                aside.hand_over()


@dataclass(frozen=True)
class _Aside:
    """Where stdout went, and the file in its place, as numbers."""

    stdout: int
    kept: int

    def hand_over(self) -> None:
        """Print what was kept, but for HiGHS's line."""
        os.lseek(self.kept, 0, os.SEEK_SET)
        with os.fdopen(self.kept, "rb", closefd=False) as lines:
            rest = b"".join(line for line in lines if line.rstrip() != LINE)
        while rest:
            rest = rest[os.write(STDOUT, rest) :]


def _aside(around: ExitStack) -> _Aside | None:
    if not _ONE.acquire(blocking=False):
        return None
    around.callback(_ONE.release)
    try:
        stdout = os.dup(STDOUT)  # first: a file might be given the number of a stdout that is closed
        around.callback(os.close, stdout)
        return _Aside(stdout, around.enter_context(tempfile.TemporaryFile(buffering=0)).fileno())
    except OSError:
        return None


def _flush() -> None:
    """Python's stdout and C's; neither if it is closed, full, or not there."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with suppress(OSError, TypeError, AttributeError):  # no C library of that name, as on Windows
        ctypes.CDLL(None).fflush(None)
