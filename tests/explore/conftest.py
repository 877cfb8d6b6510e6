"""A tiny Llama and a tiny BERT, measured."""

import json
from pathlib import Path

import pytest

import statprune
from tests.saved import save_tiny, sentences


def _steady(path: Path) -> None:
    """Seconds in proportion to the widths: those of so small a model are noise."""
    content = json.loads(path.read_text())
    for pairs in content["latency"]["seconds"].values():
        pairs[:] = [[width, 0.001 + 0.01 * width / pairs[-1][0]] for width, _ in pairs]
    path.write_text(json.dumps(content))


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `llama`, `bert`, and their measurements `of-llama` and, without latency, `of-bert`."""
    root = tmp_path_factory.mktemp("explored")
    for name, latency in (("llama", True), ("bert", False)):
        save_tiny(root / name, name)
        out = root / f"of-{name}"
        statprune.plan(root / name, data=sentences(), out=out, samples=16, seq_len=24, latency=latency)
        if latency:
            _steady(out / "measurement.json")
    return root
