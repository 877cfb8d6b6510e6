"""A run that was stopped goes on, and ends in the folder that it would have ended in."""

import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

import statprune
import statprune.engine.refit as engine
from statprune.anatomy.shelf import State
from statprune.checkpoint.unfinished import Unfinished, differences, folder_for, unfinished
from statprune.engine.passage import Passage
from statprune.errors import OutputError, StatpruneWarning
from tests.tiny import tiny_batch, tiny_model

FAMILIES = ("llama", "bert", "gpt2", "mixtral", "bart")


def batches(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    return [tiny_batch(model, rows=8, length=24, seed=seed) for seed in range(3)]


def run(out: Path, family: str = "llama", stop: tuple[str, int] | None = None, **options: Any) -> Any:
    """Compress a tiny model; `stop` interrupts it behind a (stage, block)."""

    def progress(stage: str, done: int, *_: Any) -> None:
        if (stage, done) == stop:
            raise KeyboardInterrupt

    model = options.pop("model", None) or tiny_model(family)
    given = {"data": batches(model), "keep": 0.6, "progress": progress, **options}
    return statprune.compress(model, out=out, **given)


def content(folder: Path) -> dict[str, bytes | str]:
    """Every file; of the record all but what the run took."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "statprune.json":
            record = json.loads(path.read_text())
            del record["trace"]["seconds"], record["trace"]["memory"]
            found[path.name] = json.dumps(record)
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.mark.parametrize("method", ["refit", "stat"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_that_is_stopped_at_every_block_ends_in_the_same_folder(
    family: str, method: str, tmp_path: Path
) -> None:
    run(tmp_path / "whole", family, method=method)
    stages = ("survey", "refit") if method == "refit" else ("measure", "prune")
    blocks = 6 if family == "bart" else 3
    for stage in stages:
        for block in range(1, blocks + 1):
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "out", family, (stage, block), method=method, resume=True)
            assert not (tmp_path / "out").exists()
    run(tmp_path / "out", family, method=method, resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_what_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", stop=("refit", 2))
    narrowed, own = [], engine.narrow

    def narrow(at: Passage, *rest: Any, **options: Any) -> None:
        narrowed.append(at.index)
        own(at, *rest, **options)

    monkeypatch.setattr(engine, "narrow", narrow)
    monkeypatch.setattr("statprune.pipeline.surveyed", lambda *_, **__: pytest.fail("surveyed again"))
    run(tmp_path / "out", resume=True)
    assert narrowed == [2, 2]


def test_without_being_asked_no_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", stop=("refit", 1))
    before = {path.name: path.read_bytes() for path in folder_for(tmp_path / "out").iterdir()}
    with pytest.raises(OutputError, match=r"out\.unfinished holds the state .*--resume"):
        run(tmp_path / "out")
    assert {path.name: path.read_bytes() for path in folder_for(tmp_path / "out").iterdir()} == before


def other_data(model: PreTrainedModel) -> dict[str, Any]:
    return {"data": [*batches(model)[:2], tiny_batch(model, rows=8, length=24, seed=7)]}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda model: {"keep": 0.5}, r"options\.keep was 0\.6, is 0\.5"),
        (lambda model: {"method": "stat"}, r'options\.method was "refit", is "stat"'),
        (lambda model: {"pins": {"blocks.0.feed_forward": 9}}, r"options\.pins\.blocks\.0\.feed_forward was"),
        (other_data, r"data\.content was"),
        (lambda model: {"model": tiny_model("llama", seed=3)}, r"model\.weights was"),
    ],
)
def test_another_run_does_not_go_on_with_it(changed: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", stop=("refit", 1))
    before = {path.name: path.read_bytes() for path in folder_for(tmp_path / "out").iterdir()}
    with pytest.raises(OutputError, match=told):
        run(tmp_path / "out", resume=True, **changed(tiny_model("llama")))
    assert {path.name: path.read_bytes() for path in folder_for(tmp_path / "out").iterdir()} == before


def test_differences_by_name() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": None}, "gone": "x"}
    now = {"a": 1, "b": {"c": [1, 3], "d": None}, "new": 2.5}
    told = ["b.c was [1, 2], is [1, 3]", 'gone was "x", is null', "new was null, is 2.5"]
    assert differences(before, now) == told


def test_a_damaged_state_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", stop=("refit", 2))
    path = folder_for(tmp_path / "out") / "refit-00001.safetensors"
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], b""):
        path.write_bytes(broken)
        with pytest.raises(OutputError, match=r"refit-00001.safetensors .*Remove it"):
            run(tmp_path / "out", resume=True)
    path.unlink()
    run(tmp_path / "out", resume=True)
    run(tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_hidden_states_that_are_not_those_of_before_are_told(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", stop=("refit", 2))
    path = folder_for(tmp_path / "out") / "refit-00001.safetensors"
    shelf = Unfinished(folder_for(tmp_path / "out"))
    state = shelf.earlier("refit", 1)
    assert state is not None
    assert len(load_file(path)) == len(state.tensors)
    shelf.note("refit", 1, State(state.tensors, {**state.facts, "behind": 0}))
    with pytest.warns(StatpruneWarning, match="not those of the run that was interrupted, bit for bit"):
        run(tmp_path / "out", resume=True)


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with unfinished(tmp_path / "out"):
        with pytest.raises(OutputError, match=r"another process is at work in .*out\.unfinished"):
            run(tmp_path / "out", resume=True)
        assert folder_for(tmp_path / "out").exists()
    assert not folder_for(tmp_path / "out").exists()


def test_a_run_that_goes_on_where_none_was_begins(tmp_path: Path) -> None:
    run(tmp_path / "out", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OutputError, match="exists"):
        run(tmp_path / "out", resume=True)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_full_disk_costs_nothing_that_was_done(share: float, tmp_path: Path) -> None:
    """No file may grow beyond a share of the largest one that is written: a disk that is full in between."""
    run(tmp_path / "whole")
    sizes = sorted(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    limit = int(sizes[-1] * share)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match="could not be written"):
            run(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not (tmp_path / "out").exists()
    run(tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_states_hold_what_was_noted(tmp_path: Path) -> None:
    """In bfloat16, of no elements, of no dimensions."""
    tensors = {"a": torch.randn(3, 4).bfloat16(), "none": torch.zeros(0, 5), "one": torch.tensor(7)}
    with unfinished(tmp_path / "out") as shelf:
        shelf.note("stage", 12, State(tensors, {"kept": [[1, 2]], "x": 1.5}))
        state = shelf.earlier("stage", 12)
        assert state is not None
        assert state.facts == {"kept": [[1, 2]], "x": 1.5}
        assert all(torch.equal(state.tensors[name], value) for name, value in tensors.items())
        assert shelf.earlier("stage", 11) is None
    with pytest.raises(OutputError), unfinished(tmp_path / "missing" / "out"):
        pass
