"""The demonstration, with one share: what it measures, what it writes, and that it can be run again."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from statprune import demo
from tests.cli.test_commands import listing


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter stories, less text, and speeds from short runs."""
    monkeypatch.setattr(demo, "STORY_TOKENS", 20)
    measure, evaluate = demo.tokens_per_second, demo.evaluate

    def briefly(models: Any, **options: Any) -> Any:
        return measure(models, **{**options, "batch": 2, "repeats": 2})

    monkeypatch.setattr(demo, "tokens_per_second", briefly)
    monkeypatch.setattr(
        demo, "evaluate", lambda model, **options: evaluate(model, max_tokens=4096, **options)
    )


@pytest.mark.usefixtures("quick")
def test_the_demonstration_measures_writes_and_repeats(tmp_path: Path) -> None:
    said: list[str] = []
    done = demo.demonstrate(tmp_path / "out", shares=(0.75,), say=said.append)
    dense, pruned = done.rows
    assert (dense.name, dense.share, dense.folder, dense.speed_up) == ("dense", 1.0, None, 1.0)
    assert 0.65 < pruned.share <= 0.75
    assert pruned.parameters < dense.parameters
    assert 1 < dense.perplexity < pruned.perplexity < 3 * dense.perplexity
    assert pruned.speed_up == pytest.approx(pruned.prefill / dense.prefill)
    assert pruned.prefill > 0
    assert pruned.story.startswith(demo.OPENING)
    assert len(pruned.story) > len(demo.OPENING)
    assert json.loads(json.dumps(done.to_json(), allow_nan=False))["rows"][1]["name"] == "keep 0.75"
    assert any("keep 0.75" in line for line in said)

    folder = Path(str(pruned.folder))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == pruned.parameters
    assert (folder / "LICENSE").exists()

    before = listing(folder)
    again = demo.demonstrate(tmp_path / "out", shares=(0.75,))
    assert again.rows[1].folder == f"{folder}-2"
    assert again.rows[1].perplexity == pytest.approx(pruned.perplexity, rel=1e-6)
    assert again.rows[1].story == pruned.story
    assert listing(folder) == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [folder.name, f"{folder.name}-2"]
