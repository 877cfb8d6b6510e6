"""Widths of rule stock open in stock transformers, and the folder says so, whatever the family."""

from pathlib import Path

import pytest
import transformers
from tiny import MODEL_TYPES, tiny_batch, tiny_model

import statprune
from statprune.checkpoint.classes import stock_class_of


def thinned(model_type: str, out: Path, **config: int) -> statprune.Result:
    model = tiny_model(model_type, **config)
    batches = [tiny_batch(model, rows=32)]
    return statprune.compress(model, data=batches, keep=0.75, widths="stock", multiple=4, out=out)


def opens_as_stock(made: statprune.Result) -> bool:
    folder = made.folder
    assert folder is not None
    assert "# stock transformers" in folder.how_to_load
    assert not (folder.path / "modeling_statprune.py").exists()
    opener = folder.how_to_load.split(".")[0]
    _, report = getattr(transformers, opener).from_pretrained(folder.path, output_loading_info=True)
    return not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])


def test_a_llama_that_is_written_as_a_mistral_says_so(tmp_path: Path) -> None:
    made = thinned("llama", tmp_path / "out", num_attention_heads=8, num_key_value_heads=8, head_dim=4)
    folder = made.folder
    assert folder is not None
    if made.plan.widths["blocks.0.attention"] in (1, 2, 4, 8):
        pytest.fail(f"nothing is tested: {made.plan.widths}")
    assert folder.reencoded_as == "mistral"
    assert "written as mistral, which has the same weights" in folder.how_to_load
    assert opens_as_stock(made)


@pytest.mark.audit
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_family_has_stock_widths(model_type: str, tmp_path: Path) -> None:
    made = thinned(model_type, tmp_path / "out")
    assert type(made.model) is stock_class_of(type(made.model))
    assert opens_as_stock(made)
