"""How often blocks on disk are read, and what is asked for ahead."""

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint import offload, read_ahead
from statprune.checkpoint.load import load
from statprune.engine.memory import needed
from tests.saved import save_tiny
from tests.test_offload import run, weights
from tests.test_resume import batches


@pytest.mark.parametrize(
    ("method", "walks"), [("refit", ("survey", "refit")), ("stat", ("measure", "prune"))]
)
def test_the_checkpoint_is_read_once_before_the_first_pass(
    method: str, walks: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then once by each walk of the data; behind the last one blocks come from the state."""
    save_tiny(tmp_path / "model", "llama")
    lenders: list[offload.Lender] = []
    since: list[int] = []
    reads: dict[str, list[int]] = {}
    own = offload.Lender.taken

    def counting(lender: offload.Lender, index: int, instead: Any = None) -> Any:
        lenders.append(lender)
        if lender is lenders[0] and instead is None and index not in lender._taken:
            since.append(index)
        return own(lender, index, instead)

    def progress(stage: str, done: int, blocks: int, *_: Any) -> None:
        if done == blocks:
            reads[stage] = since.copy()
            since.clear()

    monkeypatch.setattr(offload.Lender, "taken", counting)
    run(tmp_path / "model", tmp_path / "out", "llama", method=method, offload=True, progress=progress)
    assert {stage: found for stage, found in reads.items() if found} == {
        stage: [0, 1, 2] for stage in ("prepare", *walks)
    }


def test_the_next_block_is_asked_for_while_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very bytes of its weights, and of no others; of those that are read behind it nothing."""
    model = save_tiny(tmp_path / "model", "llama")
    (tmp_path / "scratch").mkdir()
    lender = load(tmp_path / "model", scratch=tmp_path / "scratch").lender
    assert lender is not None
    asked: list[bytes] = []

    def note(path: Path, start: int, length: int) -> None:
        asked.append(path.read_bytes()[start : start + length])

    monkeypatch.setattr(read_ahead, "ask_for", note)
    for index, expected in ((0, 1), (1, 2), (2, None)):
        asked.clear()
        with lender.taken(index):
            blocks = anatomy_of(model).blocks
            weights = () if expected is None else [*blocks[expected].parameters()]
            assert sorted(asked) == sorted(each.detach().numpy().tobytes() for each in weights)


def test_a_file_that_cannot_be_asked_for_is_no_error(tmp_path: Path) -> None:
    read_ahead.ask_for(tmp_path / "none")
    read_ahead.ReadAhead({}).ask(["a"])
    weights = SimpleNamespace(index={"a": {"safetensors_file": str(tmp_path / "none"), "weight_name": "a"}})
    read_ahead.ReadAhead(weights).ask(["a"])


@pytest.fixture
def lender(tmp_path: Path) -> Iterator[offload.Lender]:
    """Of a model of five blocks; it reads ahead."""
    save_tiny(tmp_path / "model", "llama", num_hidden_layers=5)
    (tmp_path / "scratch").mkdir()
    found = load(tmp_path / "model", scratch=tmp_path / "scratch").lender
    assert found is not None
    found.ahead = True
    yield found
    assert not reading()


def reading() -> list[threading.Thread]:
    """Threads that read."""
    return [each for each in threading.enumerate() if each.name == "statprune reads ahead"]


@pytest.mark.parametrize("method", ["refit", "stat"])
def test_what_a_thread_has_read_is_the_same_bit_for_bit(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reads where there is room for a second block, and only there."""
    model = save_tiny(tmp_path / "model", "llama")
    memory = needed(model, anatomy_of(model), batches(model), method)
    made: list[Any] = []
    own = offload.Reading
    monkeypatch.setattr(offload, "Reading", lambda read: (made.append(read), own(read))[1])
    run(tmp_path / "model", tmp_path / "memory", "llama", method=method)
    expected = weights(tmp_path / "memory")
    for name, more in (("alone", -1), ("ahead", 0)):
        limit = memory.most + memory.block + more
        run(tmp_path / "model", tmp_path / name, "llama", method=method, offload=True, max_memory=limit)
        assert len(made) == (4 if name == "ahead" else 0)  # two blocks behind the first, by two walks
        found = weights(tmp_path / name)
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert not reading()


def test_no_more_than_two_blocks_are_there(lender: offload.Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[weakref.ref[torch.Tensor]]] = []
    own = lender._read

    def counting(index: int) -> dict[str, torch.Tensor]:
        assert all(each() is None for earlier in read[:-1] for each in earlier)
        found = own(index)
        read.append([weakref.ref(each.untyped_storage()) for each in found.values()])
        return found

    monkeypatch.setattr(lender, "_read", counting)
    for _ in range(2):
        for index in range(5):
            with lender.taken(index):
                pass
    assert len(read) == 10


def test_what_goes_wrong_while_reading_is_raised_where_the_block_is_taken(
    lender: offload.Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"prefix": lender._prefixes[2]}

    class Weights:
        def __init__(self, own: Any) -> None:
            self.own = own

        def __getitem__(self, name: str) -> torch.Tensor:
            if name.startswith(broken["prefix"]):
                raise SafetensorError(f"{name} is cut off")
            return self.own[name]

    monkeypatch.setattr(lender, "_weights", Weights(lender._weights))
    with lender.taken(0):
        pass
    with lender.taken(1):
        pass
    with pytest.raises(SafetensorError, match=r"layers\.2\..* is cut off"), lender.taken(2):
        pass  # pragma: no cover
    lender.ahead = False
    with pytest.raises(SafetensorError, match=r"layers\.2\..* is cut off"), lender.taken(2):
        pass  # pragma: no cover


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_fails_leaves_no_thread(lender: offload.Lender, error: type[BaseException]) -> None:
    """And what was read ahead is forgotten: another walk begins in front."""
    with pytest.raises(error), lender.taken(2):
        raise error
    assert not reading()
    assert lender._next is None
    with lender.taken(3):
        pass
    with lender.taken(0):  # while block 4 was read
        found = [each.clone() for each in lender._blocks[0].parameters()]
    lender.ahead = False
    lender._forget()
    with lender.taken(0):
        assert all(map(torch.equal, found, lender._blocks[0].parameters()))
