"""The processes that torchrun starts, as `Ranks`: torch.distributed underneath, and signs of life beside it.

    with statprune.together() as ranks:
        statprune.compress("model", ..., ranks=ranks)

Sums are added up in the order of ranks, whatever arrives first.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from statprune import errors
from statprune.anatomy.ranks import ALONE, Alone, from_each
from statprune.engine.messages import Channel
from statprune.engine.places import each_has_its_own, numbers, own_place
from statprune.engine.signs import Signs
from statprune.errors import InputError, RankLostError, StatpruneError
from statprune.started import started_many

T = TypeVar("T")

TIMEOUT = 300.0
"""Seconds without a sign of life after which a process counts as lost."""

_NEVER = timedelta(days=30)
"""The limit of torch's own waiting: a process may be at work on one site for hours."""

_FREED = 5.0
"""Seconds that a process which fails waits to be freed by another one that fails."""


@contextmanager
def together(timeout: float = TIMEOUT) -> "Iterator[Group | Alone]":
    """The processes that torchrun has started, or those of torch.distributed where it is initialised already.

    In a process that was started alone: `ALONE`. All processes must enter and leave together. One that fails
    inside tells the others, which fail with the same error.

    Args:
        timeout: seconds without a sign of life after which another process counts as lost.

    Raises:
        InputError: the timeout is no positive number.
        RankLostError: another process did not come, or was lost.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 10**7:
        raise InputError(f"timeout is {timeout!r}; give seconds, above 0.")
    ours = not dist.is_initialized()
    if ours and started_many() == 1:
        yield ALONE
        return
    if ours:
        _begin(timeout)
    group = Group(timeout)
    try:
        yield group
        group.leave()
    except BaseException as error:
        group.tell(error)
        raise
    if ours:
        dist.destroy_process_group()


def _begin(timeout: float) -> None:
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())[:300]
        raise RankLostError(
            f"the {started_many()} processes did not find each other within {timeout:g} s: {told}. Check "
            f"that all were started, with the same MASTER_ADDR and MASTER_PORT."
        ) from error


class Group:
    """The processes of torch.distributed, each with its rank.

    Between GPUs NCCL carries tensors, where each process has one of its own; gloo carries all else.

    Attributes:
        rank: the number of this process, of `size`.
        local: its number among those of its machine that see the same GPUs: of the GPU that it takes.
        here: how many there are on its machine.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        store = _get_default_store()
        run = store.add(f"statprune/{self.rank}", 1)
        self._signs = Signs(PrefixStore(f"statprune/{run}", store), self.rank, self.size, timeout)
        self._over = self._failing = False
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()
        self._groups: list[Any] = []
        self._nccl = False
        self._channel = self._between("gloo", None)
        places = from_each(self, own_place())
        self.local = numbers(places)[self.rank]
        self.here = sum(place.machine == places[self.rank].machine for place in places)
        if torch.cuda.is_available():
            self._do(lambda: torch.cuda.set_device(self.local % torch.cuda.device_count()))
        if each_has_its_own(places):
            self._nccl = True
            self._channel = self._between("cpu:gloo,cuda:nccl", torch.device("cuda", self.local))

    def _between(self, backend: str, device: torch.device | None) -> Channel:
        self._groups.append(self._do(lambda: dist.new_group(timeout=_NEVER, backend=backend)))
        return Channel(self._groups[-1], device)

    def same(self, value: T | None, owner: int = 0) -> T:
        """What the owner gave, everywhere; tensors lie where they lay, on the GPU of each process.

        Raises:
            RankLostError: another process was lost. Any error that another has told is raised here too.
        """
        channel = self._channel
        found = self._do(lambda: channel.broadcast(value if owner == self.rank else None, owner))
        return value if owner == self.rank else found  # type: ignore[return-value]

    def collected(self, value: T, owner: int = 0) -> Iterator[T]:
        """At the owner what each gave, in the order of ranks, one at a time; elsewhere nothing.

        Raises:
            RankLostError: as for `same`.
        """
        if self.rank != owner:
            self._do(partial(self._channel.send, value, owner))
            return
        for rank in range(self.size):
            yield value if rank == owner else self._do(partial(self._channel.receive, rank))

    def tell(self, error: BaseException) -> None:
        """Tell the others that this process fails, and why; the first that does is heard."""
        self._over = True
        name, message = type(error).__name__, str(error)
        if not isinstance(error, StatpruneError):
            name, message = "RankLostError", f"{name}: {message}".rstrip(": ")
        if not getattr(error, "told", False):
            message = f"rank {self.rank}: {message}"
        self._signs.tell(f"{name}\n{message}")
        # That frees those that wait for this one; NCCL would itself wait.
        if self._done.wait(_FREED) and not self._nccl:
            self._close()

    def leave(self) -> None:
        """Wait until all have come to the end."""
        for rank in range(self.size):
            self.same("done" if rank == self.rank else None, rank)
        self._over = True
        self._signs.end()
        self._close()

    def stop(self) -> None:
        """Someone has asked this process to end: find out whether another one is lost.

        Raises:
            RankLostError: always, but where this process fails already.
        """
        if not self._failing and not self._over:
            raise self._lost("this one was told to stop (SIGTERM)")

    def _close(self) -> None:
        self._calls.put(None)
        for group in self._groups:
            with suppress(RuntimeError, ValueError):
                dist.destroy_process_group(group)
        self._groups.clear()
        self._channel.group = None  # the last reference: connections are closed

    def _work(self) -> None:
        """Runs what talks to other processes: it may never return, and then the others go on without it."""
        while (given := self._calls.get()) is not None:
            call, found, done = given
            try:
                found.append((call(), None))
            except Exception as error:  # handed to the thread that waits
                found.append((None, error))
            done.set()

    def _do(self, call: Callable[[], Any]) -> Any:
        found: list[tuple[Any, Exception | None]] = []
        self._done = done = threading.Event()
        self._calls.put((call, found, done))
        while not done.wait(self._signs.period):
            self._raise_told()
            silent = self._signs.silent_for(self._signs.timeout)
            if silent:
                raise self._gone(silent, f"no sign of life for {self._signs.timeout:g} s")
            if self._signs.unreachable and not done.wait(2 * self._signs.period) and self._signs.unreachable:
                raise self._gone([], f"what all share was out of reach for {self._signs.timeout:g} s")
        value, error = found[0]
        if error is not None:
            raise self._lost("a connection broke") from error
        return value

    def _raise_told(self) -> None:
        """Raise what another process has told that fails, if one has."""
        if self._signs.failure is not None:
            self._failing = True
            name, _, message = self._signs.failure.partition("\n")
            kind = getattr(errors, name, StatpruneError)
            error: Exception = (kind if issubclass(kind, StatpruneError) else StatpruneError)(message)
            error.told = True  # type: ignore[attr-defined]
            raise error

    def _lost(self, why: str) -> StatpruneError:
        """The error to raise: what another process has told, or which gives no sign of life any more."""
        self._failing = True
        silent: list[int] = []
        deadline = time.monotonic() + 10 * self._signs.period
        while not silent and time.monotonic() < deadline:
            try:
                self._raise_told()
            except StatpruneError as error:
                return error
            time.sleep(self._signs.period / 5)
            silent = self._signs.silent_for(4 * self._signs.period)
        return self._gone(silent, why)

    def _gone(self, silent: list[int], why: str) -> RankLostError:
        self._failing = True
        told = f"rank {', '.join(map(str, silent))} of {self.size} was lost: {why}"
        if not silent:
            told = f"another process was lost, or this one: {why}"
        error = RankLostError(f"{told}. See what it printed, and start all {self.size} processes again.")
        error.told = True  # type: ignore[attr-defined]
        return error
