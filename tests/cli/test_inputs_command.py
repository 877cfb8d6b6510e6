"""`plan` and `compress --from` for models that read pairs or images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statprune.checkpoint.load import load
from tests.saved import letter_tokenizer, sentences
from tests.tiny import tiny_model

PAIRS = [{"document": line, "summary": line[::-3].strip() or "a"} for line in sentences(24)]


def planned(
    command: Callable[..., Any], dense: Path, data: Path, root: Path, *options: str
) -> dict[str, Any]:
    """Plan, then compress from the plan; what the folder's record says."""
    ended = command("plan", dense, "--data", data, "--out", root / "m", *options)
    assert ended.code == 0, ended.err
    small = ["--from", root / "m", "--keep", "0.6", "--multiple", "1", "--out", root / "small"]
    ended = command("compress", *small)
    assert ended.code == 0, ended.err
    assert "saved and verified" in ended.out
    record: dict[str, Any] = json.loads((root / "small" / "statprune.json").read_text())
    assert record["cost"]["params"]["share"] <= 0.6
    return record


def test_pairs_of_two_columns(command: Callable[..., Any], tmp_path: Path) -> None:
    dense, data = tmp_path / "dense", tmp_path / "pairs.jsonl"
    tiny_model("bart").save_pretrained(dense)
    letter_tokenizer("encoder").save_pretrained(dense)
    data.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    record = planned(command, dense, data, tmp_path, "--text-column", "document,summary", "--seq-len", "40")
    assert record["data"]["rule"].startswith("one pair a sample, the first text the source")
    assert record["data"]["source"]["text_column"] == ["document", "summary"]
    refused = command("evaluate", tmp_path / "small", "--data", data, "--text-column", "document")
    assert refused.code == 2
    assert "encoder with a decoder" in refused.err


def test_a_folder_of_images(command: Callable[..., Any], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    from transformers import ViTImageProcessorPil  # noqa: PLC0415 - needs pillow

    dense, pictures = tmp_path / "dense", tmp_path / "pictures"
    tiny_model("vit").save_pretrained(dense)
    ViTImageProcessorPil(size={"height": 12, "width": 12}).save_pretrained(dense)
    pictures.mkdir()
    draw = np.random.default_rng(0)
    for number in range(8):
        image.fromarray(draw.integers(0, 256, (15, 20, 3), dtype=np.uint8)).save(pictures / f"{number}.png")
    record = planned(command, dense, pictures, tmp_path)
    assert record["data"]["source"] == {"source": "pictures", "kind": "folder", "records": 8}
    assert record["context"] == 10
    assert load(tmp_path / "small").processor.size["height"] == 12
