"""SIGTERM ends a command as Ctrl-C does: what was begun is tidied up, and the state of the run is kept."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Whether SIGTERM has come; it interrupts the command as Ctrl-C does.

    A second signal cuts the tidying up short: what is on disk is whole at any time.
    """

    def __init__(self) -> None:
        self.terminated = self.ignoring = False

    def interrupt(self, *_: Any) -> None:
        """The handler of SIGTERM."""
        self.terminated = True
        raise KeyboardInterrupt

    def ignore(self) -> None:
        """Let nothing come between the process and its end: the command has been interrupted."""
        if _first_thread():
            self.ignoring = True
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """SIGTERM as `Stop` takes it, for a while; in another thread than the first one, as it was.

    Behind an interrupt signals stay ignored: the process is to end.
    """
    stop = Stop()
    if not _first_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, stop.interrupt)
    try:
        yield stop
    finally:
        if not stop.ignoring:
            signal.signal(signal.SIGTERM, before)


def _first_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
