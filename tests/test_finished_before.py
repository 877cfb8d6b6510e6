"""A run that was killed behind its last step is recognised, and another folder in its place is not."""

import json
from pathlib import Path
from typing import Any

import pytest

import statprune
from statprune.checkpoint import unfinished as states
from statprune.checkpoint.unfinished import folder_for
from statprune.errors import OutputError
from tests.test_resume import batches, content, run
from tests.tiny import tiny_model


def stopped_behind_the_last_step(out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Killed when the folder has its name and its state is still there."""

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(states, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            run(out, **options)
    assert out.exists()
    assert folder_for(out).exists()


def test_what_was_finished_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    stopped_behind_the_last_step(out, monkeypatch)
    before = content(out)
    with pytest.raises(OutputError, match="--resume"):
        run(out)
    with pytest.raises(OutputError, match=r"options\.keep was 0\.6, is 0\.5"):
        run(out, resume=True, keep=0.5)
    assert folder_for(out).exists()
    result = run(out, resume=True)
    assert content(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (result.before, result.model) == (True, None)
    whole = run(tmp_path / "whole")
    assert not whole.before
    assert result.plan == whole.plan
    assert [site.kept for site in result.trace.sites] == [site.kept for site in whole.trace.sites]
    assert result.folder.stock == whole.folder.stock
    assert result.folder.agreement == whole.folder.agreement


def test_what_was_finished_is_recognised_by_another_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    stopped_behind_the_last_step(Path("out"), monkeypatch)
    monkeypatch.chdir(tmp_path)
    result = run(Path("inner/out"), resume=True)
    assert result.before
    assert result.folder.path == Path("inner/out")
    assert '("inner/out"' in result.folder.how_to_load
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["out"]


def test_another_measurement_of_the_same_model_is_told_apart(tmp_path: Path) -> None:
    model = tiny_model("llama")
    statprune.plan(model, data=batches(model), out=tmp_path / "measured", latency=False)

    def stop(*_: Any) -> None:
        if folder_for(tmp_path / "out").exists() and list(folder_for(tmp_path / "out").glob("refit-*")):
            raise KeyboardInterrupt

    given = {"measured": tmp_path / "measured", "keep": 0.6, "out": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        statprune.compress(tiny_model("llama"), progress=stop, **given)
    path = tmp_path / "measured" / "measurement.json"
    told = json.loads(path.read_text())
    told["curves"]["blocks.0.attention"]["error"][0] += 1e-9
    path.write_text(json.dumps(told))
    with pytest.raises(OutputError, match=r"measured\.content was"):
        statprune.compress(tiny_model("llama"), resume=True, **given)


@pytest.mark.parametrize("foreign", ["replaced", "a file more", "another record", "a shorter file"])
def test_another_folder_in_its_place_is_not_taken_for_it(
    foreign: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    stopped_behind_the_last_step(out, monkeypatch)
    if foreign == "replaced":
        out.rename(tmp_path / "elsewhere")
        out.mkdir()
        (out / "mine").write_text("precious")
    elif foreign == "a file more":
        (out / "mine").write_text("precious")
    elif foreign == "another record":
        path = out / "statprune.json"
        path.write_text(path.read_text().replace("a", "b"))
    else:
        (out / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes()[:-1])
    found, state = (
        {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (out, folder_for(out))
    )
    with pytest.raises(OutputError, match="exists, and nothing is ever overwritten"):
        run(out, resume=True)
    for before, folder in ((found, out), (state, folder_for(out))):
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
