"""Whole runs of a classifier with few tokens: said, recorded, resumed, the same in other batches."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from transformers import PreTrainedModel

import statprune
from statprune.cli.summary import show_result
from tests.near import require_near
from tests.saved import save_tiny, sentences
from tests.test_resume import batches, content, run
from tests.tiny import tiny_model


def classifier() -> PreTrainedModel:
    return tiny_model("bert", head="BertForSequenceClassification", num_labels=3)


def test_it_is_said_recorded_and_on_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny(tmp_path / "model", "bert", head="BertForSequenceClassification", num_labels=3)
    result = statprune.compress(
        tmp_path / "model", data=sentences(60), keep=0.6, samples=40, seq_len=32, out=tmp_path / "out"
    )
    count = result.trace.spliced
    assert count in {30, 60, 90, 120}  # of the thirty that are not held out
    assert result.record["trace"]["spliced"] == count
    assert f"{count:,} samples besides" in (tmp_path / "out" / "README.md").read_text()
    show_result(result, 1.0)
    assert f"fitted on {count} samples besides" in capsys.readouterr().out


def test_of_a_model_with_tokens_enough_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "model", "bert", head="BertForSequenceClassification", num_labels=3)
    result = statprune.compress(
        tmp_path / "model", data=sentences(400), keep=0.6, samples=300, seq_len=32, out=tmp_path / "out"
    )
    assert result.trace.spliced == 0
    show_result(result, 1.0)
    assert "samples besides" not in (tmp_path / "out" / "README.md").read_text() + capsys.readouterr().out


def test_embeddings_are_fitted_on_some_where_tokens_are_few_and_a_decoder_is_not() -> None:
    def compressed(model: PreTrainedModel, rows: int) -> int:
        data = [{name: value[:rows] for name, value in batch.items()} for batch in batches(model)]
        return statprune.compress(model, data=data, keep=0.6).trace.spliced

    for rows in (2, 3):
        assert compressed(tiny_model("bert", head="BertModel"), rows) > 0
        assert compressed(tiny_model("llama"), rows) == 0


@pytest.mark.parametrize("cuts", [2, 8])
def test_in_smaller_batches(cuts: int) -> None:
    def compressed(size: int) -> statprune.Result:
        model = classifier()
        data: list[dict[str, Tensor]] = [
            {name: value[rows : rows + size] for name, value in batch.items()}
            for batch in batches(model)
            for rows in range(0, 8, size)
        ]
        return statprune.compress(model, data=data, keep=0.6)

    whole, cut = compressed(8), compressed(8 // cuts)
    assert whole.trace.spliced == cut.trace.spliced > 0
    require_near(whole, cut)


def test_a_run_that_is_stopped_at_every_block_ends_in_the_same_folder(tmp_path: Path) -> None:
    def go(out: Path, **options: Any) -> Any:
        return run(out, "bert", model=classifier(), **options)

    assert go(tmp_path / "whole").trace.spliced > 0
    for block in range(1, 4):
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "out", stop=("refit", block), resume=True)
    go(tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
