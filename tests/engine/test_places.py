"""Each process has a GPU of its own, or NCCL is not used; no GPU is needed to test that."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from statprune.engine.places import Place, each_has_its_own, numbers, own_place


def test_processes_of_a_machine_are_counted_where_nobody_tells_their_number() -> None:
    places = [Place("a", 2), Place("b", 2), Place("a", 2), Place("b", 2)]
    assert numbers(places) == [0, 0, 1, 1]
    assert each_has_its_own(places)
    assert not each_has_its_own([*places, Place("a", 2)])  # three processes, two GPUs
    assert not each_has_its_own([Place("a", 1), Place("a", 1)])
    assert not each_has_its_own([Place("a", 2), Place("b", 0)])  # one machine has none


def test_processes_that_see_other_gpus_are_counted_apart() -> None:
    places = [Place("a", 1, visible) for visible in ("0", "1")]
    assert numbers(places) == [0, 0]
    assert each_has_its_own(places)
    assert not each_has_its_own([places[0], places[0]])
    assert each_has_its_own([Place("a", 2, "2, 3"), Place("a", 2), Place("a", 2)])
    assert not each_has_its_own([Place("a", 2, "1,0"), Place("a", 2), Place("a", 2)])  # one sees both


def test_numbers_that_are_told_hold() -> None:
    """Of machines that have the same name, too; two that take the same GPU are found out."""
    assert numbers([Place("a", 2, told=1), Place("a", 2, told=0)]) == [1, 0]
    assert each_has_its_own([Place("a", 2, told=1), Place("a", 2, told=0)])
    assert not each_has_its_own([Place("a", 2, told=0), Place("a", 2, told=0)])
    assert not each_has_its_own([Place("a", 1, told=1)])


def test_numbers_that_are_told_count_nothing_where_each_sees_a_gpu_of_its_own() -> None:
    places = [Place("a", 1, str(each), told=each) for each in range(3)]
    assert numbers(places) == [0, 0, 0]
    assert each_has_its_own(places)
    assert not each_has_its_own([Place("a", 1, "0", told=each) for each in range(2)])  # both see one
    assert numbers([Place("a", 2, "4,5", told=1), Place("a", 2, "4,5", told=0)]) == [1, 0]


def test_a_place_says_what_the_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    found = own_place()
    assert found.machine.startswith(socket.gethostname())
    assert (found.gpus, found.visible, found.told) == (3, "", None)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    assert (own_place().visible, own_place().told) == ("5,6,7", 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    assert own_place().gpus == 0


STARTED = """
import sys, torch, torch.distributed as dist
gpus, asked, own = int(sys.argv[1]), [], dist.new_group
torch.cuda.is_available = lambda: gpus > 0
torch.cuda.device_count = lambda: gpus
torch.cuda.set_device = lambda number: asked.append(number)
dist.is_nccl_available = lambda: True
dist.new_group = lambda *, timeout, backend: asked.append(backend) or own(timeout=timeout, backend="gloo")
from statprune.engine import group
group.Channel = lambda found, device: asked.append(str(device)) or made(found, None)
from statprune.engine.messages import Channel as made
with group.together(timeout=30) as ranks:
    numbers = [ranks.same(n * 10 if n == ranks.rank else None, n) for n in range(2)]
    print(ranks.local, ranks.here, *asked, numbers)
"""
"""A process with a stand-in for GPUs: what it asks torch for, and what comes through."""


@pytest.mark.parametrize(("gpus", "nccl"), [(1, False), (2, True)])
def test_without_torchrun_nccl_is_for_a_gpu_each(gpus: int, nccl: bool) -> None:
    """As srun starts processes: only ranks and the address are told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCAL_")}
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", STARTED, str(gpus)],
            env={**kept, **told, "RANK": str(rank)}, stdout=-1, stderr=-1, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for rank, process in enumerate(started):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        more = f" cpu:gloo,cuda:nccl cuda:{rank}" if nccl else ""
        assert out == f"{rank} 2 gloo None {rank % gpus}{more} [0, 10]\n"
