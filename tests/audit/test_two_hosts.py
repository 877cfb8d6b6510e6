"""Two hosts, as network namespaces with a cable between them, and folders of their own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import statprune
from statprune.checkpoint.load import load
from statprune.checkpoint.unfinished import folder_for
from tests.saved import save_tiny, sentences

pytestmark = pytest.mark.audit

HOSTS = ("statprune0", "statprune1")
ADDRESS = "10.213.77.{}"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[None]:
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here (iproute2)")
    try:
        ip("netns", "add", HOSTS[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        ip("netns", "add", HOSTS[1])
        ends = [["name", "cable", "netns", host] for host in HOSTS]
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for number, host in enumerate(HOSTS):
            ip("-n", host, "addr", "add", f"{ADDRESS.format(number + 1)}/24", "dev", "cable")
            ip("-n", host, "link", "set", "cable", "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)


def start(root: Path, *more: str) -> list[subprocess.Popen[str]]:
    """A process on each host, each in a folder of its own with the model and the data."""
    started = []
    for number, host in enumerate(HOSTS):
        here = root / host
        if not here.exists():
            here.mkdir()
            save_tiny(here / "model", "llama", num_hidden_layers=6)
            lines = (json.dumps({"text": line}) + "\n" for line in sentences(300))
            (here / "data.jsonl").write_text("".join(lines))
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={number}"]
        rendezvous = ["--nproc-per-node=1", f"--master-addr={ADDRESS.format(1)}", "--master-port=29533"]
        compress = ["-m", "statprune", "compress", "model", "--data", "data.jsonl", "--out", "out"]
        sizes = ["--samples", "90", "--seq-len", "64", "--keep", "0.6", *more]
        variables = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable", "PYTHONWARNINGS": "ignore"}
        started.append(
            subprocess.Popen(
                ["ip", "netns", "exec", host, *torchrun, *rendezvous, *compress, *sizes],
                env={**os.environ, **variables}, cwd=here, stdout=-1, stderr=-1, text=True,
            )
        )  # fmt: skip
    return started


def children(process: "subprocess.Popen[str]") -> list[str]:
    """Processes that torchrun has started and that run."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [child for child in found if Path(f"/proc/{child}/cmdline").read_bytes()]


def ended(started: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    found = []
    for process in started:
        out, err = process.communicate(timeout=180)
        found.append(
            (process.returncode, out, "\n".join(line for line in err.splitlines() if "error: " in line))
        )
    return found


def require_the_model_of_one_process(folder: Path) -> None:
    data = {"data": str(folder / "data.jsonl"), "samples": 90, "seq_len": 64}
    statprune.compress(folder / "model", out=folder / "alone", keep=0.6, **data)
    alone, found = (load(folder / name).model.state_dict() for name in ("alone", "out"))
    assert all(torch.allclose(value, found[name], atol=1e-6, rtol=0) for name, value in alone.items())


@pytest.mark.usefixtures("hosts")
def test_two_hosts_that_share_no_disk_make_one_model(tmp_path: Path) -> None:
    (first, second) = ended(start(tmp_path))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "saved and verified" in first[1]
    assert second[1] == ""
    assert sorted(path.name for path in (tmp_path / HOSTS[1]).iterdir()) == ["data.jsonl", "model"]
    require_the_model_of_one_process(tmp_path / HOSTS[0])


@pytest.mark.usefixtures("hosts")
def test_a_cable_that_is_cut_ends_the_run_on_both_sides(tmp_path: Path) -> None:
    started = start(tmp_path, "--timeout", "5")
    state = folder_for(tmp_path / HOSTS[0] / "out")
    while len(list(state.glob("*.safetensors"))) < 2:
        assert started[0].poll() is None, ended(started)
        time.sleep(0.01)
    ip("-n", HOSTS[1], "link", "set", "cable", "down")
    deadline = time.monotonic() + 40
    while any(children(process) for process in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for process in started:
        process.kill()  # torchrun itself waits for the other host for minutes
    for number, (_, out, errors) in enumerate(ended(started)):
        assert out == ""
        assert "was lost" in errors, (number, errors)
    assert not (tmp_path / HOSTS[0] / "out").exists()
    assert not folder_for(tmp_path / HOSTS[1] / "out").exists()
    ip("-n", HOSTS[1], "link", "set", "cable", "up")
    assert [code for code, _, _ in ended(start(tmp_path, "--resume"))] == [0, 0]
    require_the_model_of_one_process(tmp_path / HOSTS[0])
