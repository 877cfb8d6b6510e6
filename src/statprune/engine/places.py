"""Where the processes of a run are: on which machines, and whether each has a GPU of its own.

torchrun says how many processes it starts on a machine; what starts them elsewhere (srun, mpirun) need not.
So each tells where it is, and all count.
"""

import os
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Place:
    """Where one process is.

    Attributes:
        machine: its name, and what tells it from another one of that name.
        gpus: GPUs that the process sees and NCCL can use.
        visible: which those are, as CUDA_VISIBLE_DEVICES says.
        told: its number among the processes of the machine, where whoever started it has said so.
    """

    machine: str
    gpus: int = 0
    visible: str = ""
    told: int | None = None


def own_place() -> Place:
    """Where this process is."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    told = os.environ.get("LOCAL_RANK", "")
    usable = torch.cuda.is_available() and dist.is_nccl_available()
    return Place(
        machine=f"{socket.gethostname()} {boot}".rstrip(),
        gpus=torch.cuda.device_count() if usable else 0,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        told=int(told) if told.isdecimal() else None,
    )


def numbers(places: Sequence[Place]) -> list[int]:
    """The number of each process, by rank, among those of its machine that see the same GPUs.

    What it was told counts processes of the machine; where it sees too few GPUs for that, since
    CUDA_VISIBLE_DEVICES gives it some of its own, those that see the same are counted.
    """
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for place in places:
        key = (place.machine, place.visible)
        told = place.told
        found.append(seen[key] if told is None or (place.visible and told >= place.gpus) else told)
        seen[key] += 1
    return found


def each_has_its_own(places: Sequence[Place]) -> bool:
    """Whether every process has a GPU that no other one takes."""
    taken = set()
    for place, number in zip(places, numbers(places), strict=True):
        if number >= place.gpus:
            return False
        names = place.visible.split(",") if place.visible else [str(each) for each in range(place.gpus)]
        taken.add((place.machine, names[number].strip()))
    return len(taken) == len(places)
