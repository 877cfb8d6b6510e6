"""Same in, same out: every byte on repeat; up to rounding in other batches, and with other threads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import statprune
from tests.near import require_near
from tests.saved import save_tiny, sentences
from tests.test_resume import batches, content
from tests.tiny import tiny_model


def compressed(cuts: int = 1, **options: Any) -> statprune.Result:
    """On 24 samples in batches of 8, or of so many times fewer."""
    model = tiny_model("llama")
    data = [
        {name: value[rows : rows + 8 // cuts] for name, value in batch.items()}
        for batch in batches(model)
        for rows in range(0, 8, 8 // cuts)
    ]
    return statprune.compress(model, data=data, keep=0.6, **options)


@pytest.mark.parametrize("method", ["refit", "stat"])
def test_the_same_bytes_on_repeat(method: str, tmp_path: Path) -> None:
    """From a folder and texts, samples drawn; the generator of everybody's is elsewhere each time."""
    save_tiny(tmp_path / "model", "llama")
    for name in ("one", "two"):
        torch.rand(7)
        statprune.compress(
            tmp_path / "model", data=sentences(), keep=0.6, samples=12, seq_len=32, seed=3, method=method,
            out=tmp_path / name,
        )  # fmt: skip
    assert content(tmp_path / "one") == content(tmp_path / "two")
    record = json.loads((tmp_path / "one" / "statprune.json").read_text())
    assert record["recipe"]["seed"] == 3
    assert record["statprune"] == statprune.__version__
    assert set(record["versions"]) == {"torch", "transformers"}


@pytest.mark.parametrize("method", ["refit", "stat"])
@pytest.mark.parametrize("cuts", [2, 8])
def test_in_smaller_batches(method: str, cuts: int) -> None:
    require_near(compressed(method=method), compressed(cuts, method=method))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.audit
@pytest.mark.parametrize("method", ["refit", "stat"])
def test_with_two_threads(method: str) -> None:
    alone = compressed(method=method)
    with threads(2):
        require_near(alone, compressed(method=method))
