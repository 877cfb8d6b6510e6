"""A command in several processes that torchrun has started: the first one prints."""

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from statprune.errors import InputError, RankLostError
from statprune.started import own_number, started_many

if TYPE_CHECKING:
    from statprune.anatomy.ranks import Ranks

SHARED = ("compress",)
"""Commands that several processes can share."""

PATIENCE = 2.0
"""Seconds that the others leave the first process to say why all end: torchrun stops it when one ends."""


@contextmanager
def many(timeout: float) -> "Iterator[Ranks]":
    """The processes that were started, or this one alone; those behind the first show no warnings."""
    from statprune.engine.group import Group, together  # noqa: PLC0415 - help does without torch

    with warnings.catch_warnings(), together(timeout) as ranks:
        if isinstance(ranks, Group):
            group = ranks
            signal.signal(signal.SIGTERM, lambda *_: group.stop())
        if ranks.rank:
            warnings.showwarning = lambda *_, **__: None
        yield ranks


def refuse_unshared(command: str | None) -> None:
    """Raise InputError where several processes were started for a command that is for one."""
    if started_many() > 1 and command is not None and command not in SHARED:
        raise InputError(
            f"{started_many()} processes were started for `{command}`, which runs in one; only "
            f"{', '.join(SHARED)} can be shared. Start it without torchrun."
        )


def prints(error: BaseException) -> bool:
    """Whether this process tells of `error`: the first does, and each that has lost another."""
    return own_number() == 0 or isinstance(error, RankLostError)


def leave(code: int) -> None:
    """End a process that failed among several: one of its threads may wait for another process for ever."""
    if started_many() == 1:
        return
    if own_number():
        time.sleep(PATIENCE)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
