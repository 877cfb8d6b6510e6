"""With --json stdout holds one JSON object and nothing else, whatever libraries or their processes print."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


class Diverted(io.TextIOBase):
    """In the place of sys.stdout: what is printed goes to stderr; `result` alone goes to stdout."""

    def __init__(self, stdout: IO[str]) -> None:
        self._stdout = stdout

    def write(self, text: str) -> int:
        """Print, for people."""
        return sys.stderr.write(text)

    def result(self, text: str) -> None:
        """Print what was asked for."""
        self._stdout.write(text)
        self._stdout.flush()

    def flush(self) -> None:
        """Bring both on their way."""
        sys.stderr.flush()
        self._stdout.flush()

    def fileno(self) -> int:
        """That of stdout."""
        return self._stdout.fileno()


@contextmanager
def json_alone(asked: bool) -> Iterator[None]:
    """Within it only `Diverted.result` writes to stdout, if `asked`; processes started meanwhile do not."""
    if not asked:
        yield
        return
    own = sys.stdout
    own.flush()
    if not _is_stdout_itself(own):  # somebody has replaced it, and has what is written to it alone
        sys.stdout = Diverted(own)
        try:
            yield
        finally:
            sys.stdout = own
        return
    kept = os.dup(1)
    os.dup2(2, 1)
    stdout = os.fdopen(os.dup(kept), "w", encoding=own.encoding, errors=own.errors)
    sys.stdout = Diverted(stdout)
    try:
        yield
    finally:
        sys.stdout = own
        own.flush()
        os.dup2(kept, 1)
        os.close(kept)
        with suppress(OSError):  # a full disk was told of when the result was written
            stdout.close()


def _is_stdout_itself(stream: IO[str]) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):
        return False
