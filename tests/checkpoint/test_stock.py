"""Widths that stock transformers can open: chosen by the allocation itself, not found out afterwards."""

from pathlib import Path

import pytest
import torch

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.stock import stock_units
from statprune.checkpoint.widths import encode
from tests.tiny import MODEL_TYPES, random_cut, tiny_batch, tiny_model

EIGHT = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 8, "hidden_size": 32}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_called_stock_is_opened_by_the_stock_class(model_type: str, tmp_path: Path) -> None:
    """And what is not, is refused by it: the answer is compared with transformers itself."""
    sites = [site for site in anatomy_of(tiny_model(model_type)).sites if site.kind == "attention"]
    said = stock_units(tiny_model(model_type), anatomy_of(tiny_model(model_type)))
    assert set(said) == {site.name for site in sites}
    for units in range(1, sites[0].units + 1) if sites else ():
        model = random_cut(tiny_model(model_type), {site.name: range(units) for site in sites})
        anatomy = anatomy_of(model)
        assert encode(model, anatomy).stock is (units in said[sites[0].name])


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text"])
def test_a_validator_that_wants_heads_to_divide_is_heeded(model_type: str, tmp_path: Path) -> None:
    model = tiny_model(model_type, **EIGHT)
    said = stock_units(model, anatomy_of(model))
    assert all(units == [1, 2, 4, 8] for units in said.values())
    batches = [tiny_batch(model, rows=32)]
    for keep in (0.7, 0.45):
        made = statprune.compress(
            tiny_model(model_type, **EIGHT),
            data=batches,
            keep=keep,
            widths="uniform",
            out=tmp_path / str(keep),
        )
        assert made.folder.stock
        assert made.plan.widths["blocks.0.attention"] in (1, 2, 4, 8)
        assert "stock transformers can open" in made.plan.why


def test_a_llama_may_have_any_number(tmp_path: Path) -> None:
    model = tiny_model("llama", **EIGHT)
    assert all(units == [*range(1, 9)] for units in stock_units(model, anatomy_of(model)).values())
    biased = tiny_model("llama", **EIGHT, attention_bias=True)
    assert all(units == [1, 2, 4, 8] for units in stock_units(biased, anatomy_of(biased)).values())


@pytest.mark.parametrize("method", ["refit", "stat"])
def test_stock_widths_keep_all_heads_where_fewer_cannot_be_said(method: str, tmp_path: Path) -> None:
    model = tiny_model("bert")
    batches = [tiny_batch(model, rows=32)]
    made = statprune.compress(
        model, data=batches, keep=0.7, widths="stock", method=method, out=tmp_path / "out", multiple=4
    )
    assert made.folder.stock
    assert {made.plan.widths[f"blocks.{n}.attention"] for n in range(3)} == {4}
    uniform = statprune.compress(
        tiny_model("bert"), data=batches, keep=0.5, widths="uniform", out=tmp_path / "uniform", multiple=4
    )
    assert not uniform.folder.stock or uniform.plan.widths["blocks.0.attention"] == 4


def test_a_measurement_remembers_what_stock_can_say(tmp_path: Path) -> None:
    model = tiny_model("gemma2", **EIGHT)
    model.save_pretrained(tmp_path / "model")
    batches = [tiny_batch(model, rows=32)]
    statprune.plan(tmp_path / "model", data=batches, out=tmp_path / "measured")
    found = statprune.answer(measured=tmp_path / "measured", keeps=[0.6, 0.5], widths="stock")
    assert all(each.plan.widths["blocks.1.attention"] in (1, 2, 4, 8) for each in found.answers)
    with torch.no_grad():
        made = statprune.compress(
            measured=tmp_path / "measured", keep=0.6, widths="stock", out=tmp_path / "out"
        )
    assert made.folder.stock
    assert made.plan.widths == found.answers[0].plan.widths
