"""`plan` with blocks on disk, and a measurement that was stopped: what is measured is the same."""

from pathlib import Path
from typing import Any

import pytest

import statprune
from statprune.checkpoint import unfinished as states
from statprune.checkpoint.unfinished import folder_for
from statprune.errors import InputError, OutputError
from tests.saved import save_tiny
from tests.test_resume import batches
from tests.tiny import tiny_model

FILES = ("measurement.json", "samples.safetensors")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "model", "llama")
    return tmp_path / "model"


def measured(model: Any, out: Path | None, stop: int | None = None, **options: Any) -> Any:
    def progress(stage: str, done: int, *_: Any) -> None:
        if (stage, done) == ("survey", stop):
            raise KeyboardInterrupt

    given = {"data": batches(tiny_model("llama")), "latency": False, "progress": progress, **options}
    return statprune.plan(model, out=out, **given)


def same(first: Path, second: Path) -> bool:
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in FILES)


def test_offloaded_it_measures_the_same(model: Path, tmp_path: Path) -> None:
    measured(model, tmp_path / "memory")
    measured(model, tmp_path / "new" / "disk", offload=True)
    assert same(tmp_path / "memory", tmp_path / "new" / "disk")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["disk"]
    assert measured(model, None, offload=True).fingerprint == measured(model, None).fingerprint
    once = statprune.compress(model, measured=tmp_path / "memory", keep=0.6, out=tmp_path / "a")
    twice = statprune.compress(
        model, measured=tmp_path / "new" / "disk", keep=0.6, out=tmp_path / "b", offload=True
    )
    assert once.plan.widths == twice.plan.widths


@pytest.mark.parametrize("offload", [False, True])
def test_a_measurement_goes_on_where_it_was_stopped(
    offload: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for stop in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            measured(model, out, stop, offload=offload, resume=True)
        assert not out.exists()
    with pytest.raises(OutputError, match="--resume"):
        measured(model, out, offload=offload)
    with pytest.raises(OutputError, match="measures"):
        statprune.compress(
            model, data=batches(tiny_model("llama")), keep=1.0, out=out, resume=True, offload=offload
        )
    made: list[str] = []
    own = states.Unfinished.note
    monkeypatch.setattr(
        states.Unfinished, "note", lambda self, stage, *rest: (made.append(stage), own(self, stage, *rest))[1]
    )
    measured(model, out, offload=offload, resume=True)
    assert made == ["survey"]
    measured(model, tmp_path / "whole")
    assert same(out, tmp_path / "whole")
    assert not folder_for(out).exists()


def test_what_does_not_go_together_is_refused_before_anything(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statprune.planning.surveyed", lambda *_, **__: pytest.fail("measured"))
    out = tmp_path / "new" / "out"
    for options, told in (
        ({"offload": True, "latency": True}, "latency is measured of a model in memory"),
        ({"max_memory": "6GB"}, "goes with offload"),
        ({"offload": True, "max_memory": "500MB"}, "max_memory is 500 MB, and this run needs"),
    ):
        with pytest.raises(InputError, match=told):
            measured(model, out, **options)
    small = {"offload": True, "max_memory": "500MB"}
    with pytest.raises(InputError, match="this run needs"):
        measured(model, None, **small)
    for more in ({"dry_run": True}, {}):
        with pytest.raises(InputError, match="this run needs"):
            statprune.compress(model, data=batches(tiny_model("llama")), keep=0.6, **small, **more)
    with pytest.raises(InputError, match="this model is in memory"):
        measured(tiny_model("llama"), out, offload=True)
    with pytest.raises(InputError, match="for measuring; leave them out"):
        statprune.answer(model, measured=tmp_path, keeps=[0.5], offload=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
