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
        self.terminated = False

    def interrupt(self, *_: Any) -> None:
        """The handler of SIGTERM."""
        self.terminated = True
        raise KeyboardInterrupt

    def ignore(self) -> None:
        """Let nothing come between the command and the last thing that it says."""
        if _first_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Signals as `Stop` takes them, for a while; in another thread than the first one, as they were."""
    stop = Stop()
    if not _first_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, stop.interrupt)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
