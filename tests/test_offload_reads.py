"""How often blocks on disk are read, and what is asked for ahead."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint import offload, read_ahead
from statprune.checkpoint.load import load
from tests.saved import save_tiny
from tests.test_offload import run


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
