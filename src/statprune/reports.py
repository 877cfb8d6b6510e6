"""What a run reports about itself while it goes on: where it is, the last site's error, time left, memory.

statprune.compress("model-folder", ..., progress=statprune.Reporter(print))
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from statprune.engine.progress import NOTHING, Facts
from statprune.engine.resident import peak_resident, resident
from statprune.time_left import TimeLeft


@dataclass(frozen=True)
class Memory:
    """Memory of this process in bytes; None where it cannot be told.

    Attributes:
        resident: in use now.
        peak: the most so far.
        device: the most on the GPU so far; None where the model is not on one.
    """

    resident: int | None = None
    peak: int | None = None
    device: int | None = None


@dataclass(frozen=True)
class Report:
    """What is known when a block is done.

    Attributes:
        stage: its name.
        done: blocks of the stage that lie behind, of `blocks`; of an evaluation windows or samples.
        site: the site that was narrowed last; None before the first.
        error: its relative error.
        seconds: since the reporter was made.
        left: seconds until the end; None before that can be told.
        memory: of this process.
        trial: which of several models is tried, in words; None where there is one.
    """

    stage: str
    done: int
    blocks: int
    site: str | None
    error: float | None
    seconds: float
    left: float | None
    memory: Memory
    trial: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able content, without nesting."""
        tried = {} if self.trial is None else {"trial": self.trial}
        return tried | {
            "stage": self.stage,
            "block": self.done,
            "blocks": self.blocks,
            "site": self.site,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "seconds_left": None if self.left is None else round(self.left, 3),
            "resident_bytes": self.memory.resident,
            "peak_bytes": self.memory.peak,
            "device_peak_bytes": self.memory.device,
        }


class Reporter:
    """A `progress` callback that hands a `Report` to each of its listeners after every block.

    Args:
        listeners: called with each report, in order.
        time_left: the estimate; one for each run.
    """

    def __init__(self, *listeners: Callable[[Report], None], time_left: TimeLeft | None = None) -> None:
        self.time_left = time_left or TimeLeft()
        self.listeners = list(listeners)
        self._site: str | None = None
        self._error: float | None = None
        self._device: str | None = None

    def __call__(self, stage: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
        """Take what the engine tells, and report."""
        self.time_left(stage, done, blocks, facts)
        if facts.site is not None:
            self._site, self._error = facts.site, facts.error
        self._device = facts.device or self._device
        report = Report(
            stage=stage,
            done=done,
            blocks=blocks,
            site=self._site,
            error=self._error,
            seconds=self.time_left.seconds,
            left=self.time_left.left(),
            memory=self.memory(),
            trial=facts.trial,
        )
        for listener in self.listeners:
            listener(report)

    def memory(self) -> Memory:
        """Memory in use now."""
        return memory_in_use(self._device)


def memory_in_use(device: str | None = None) -> Memory:
    """This process's memory, and that on the GPU `device`, such as "cuda:0"."""
    on_gpu = device is not None and device.startswith("cuda")
    return Memory(resident(), peak_resident(), torch.cuda.max_memory_allocated(device) if on_gpu else None)
