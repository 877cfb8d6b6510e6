"""HiGHS now and then prints a line of its own to stdout, whatever it is told; here it does not get there.

Source of the line: https://github.com/jump-dev/HiGHS.jl/issues/312
"""

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LINE = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();"

STDOUT = 1


@contextmanager
def without_chatter() -> Iterator[None]:
    """Within it stdout is kept back; afterwards what was printed comes, without HiGHS's line.

    That is the process's stdout, so what other threads print meanwhile comes with it, nothing is lost. Where
    the process has none, or a file to keep it in cannot be made, nothing is done.
    """
    kept = aside = None
    with suppress(OSError):
        aside = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        kept = os.dup(STDOUT)
    if aside is None or kept is None:
        yield
        return
    _flush()
    os.dup2(aside.fileno(), STDOUT)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, STDOUT)
        os.close(kept)
        aside.seek(0)
        rest = b"".join(line for line in aside if line.rstrip() != LINE)
        aside.close()
        while rest:
            rest = rest[os.write(STDOUT, rest) :]


def _flush() -> None:
    """Python's stdout and C's; neither if it is closed, full, or not there."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with suppress(OSError, TypeError, AttributeError):  # no C library of that name, as on Windows
        ctypes.CDLL(None).fflush(None)
