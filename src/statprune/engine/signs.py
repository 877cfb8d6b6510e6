"""Signs of life of several processes, in a store that all of them share: slow is not taken for dead.

A thread of its own counts there once a second, reads how far the others have counted, and whether one has
told that it fails. Everyone else only looks at what it has found: a store out of reach may not answer at all.
"""

import threading
import time
from typing import Any

_FAILED = "failed"


class Signs:
    """What this process knows of the others.

    Args:
        store: of torch.distributed, for this run alone.
        rank: the number of this process, of `size`.
        timeout: seconds without a sign after which a process counts as lost.
    """

    def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
        self.timeout, self.period = timeout, min(1.0, timeout / 5)
        self._store, self._own = store, f"beat{rank}"
        self._others = [other for other in range(size) if other != rank]
        now = time.monotonic()
        self._seen = dict.fromkeys(self._others, (b"", now))
        self._reached = now
        self._failure: str | None = None
        self._telling: str | None = None
        self._told, self._wake, self._over = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def failure(self) -> str | None:
        """What a process has told that fails; the first one that did."""
        return self._failure

    def silent_for(self, seconds: float) -> list[int]:
        """Ranks that have given no sign for longer than so many seconds, when the store was last read."""
        return [rank for rank, (_, since) in self._seen.items() if self._reached - since > seconds]

    @property
    def unreachable(self) -> bool:
        """Whether the store has not answered for too long."""
        return time.monotonic() - self._reached > self.timeout

    def tell(self, message: str) -> None:
        """Tell that this process fails, unless another has before; count no more."""
        self._telling = message
        self._wake.set()
        self._told.wait(3 * self.period)
        self.end()

    def end(self) -> None:
        """Count no more."""
        self._over.set()
        self._wake.set()

    def _watch(self) -> None:
        count = 0
        while not self._over.is_set():
            count += 1
            try:
                self._look(str(count))
            except RuntimeError:
                time.sleep(self.period)  # gone, with the process that kept it; or for a moment only
                continue
            self._wake.wait(self.period)
            self._wake.clear()

    def _look(self, count: str) -> None:
        if self._telling is not None:
            self._store.compare_set(_FAILED, "", self._telling)
            self._told.set()
        self._store.set(self._own, count)
        if self._failure is None and self._store.check([_FAILED]):
            self._failure = self._store.get(_FAILED).decode()
        for rank in self._others:
            value = self._store.get(f"beat{rank}") if self._store.check([f"beat{rank}"]) else b""
            if value != self._seen[rank][0]:
                self._seen[rank] = (value, time.monotonic())
        self._reached = time.monotonic()
