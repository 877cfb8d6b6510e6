"""Whole runs on mixtures of experts, with the grouped product that transformers runs them with by default."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.cost import Cost
from statprune.budget.plan import full
from statprune.engine.latency import time_widths
from tests.tiny import tiny_batch, tiny_model

FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe")


def built(family: str):
    model = tiny_model(family, **({} if family == "mixtral" else {"mlp_only_layers": [1]}))
    model.config._experts_implementation = "grouped_mm"
    return model


def data_of(model) -> list[dict[str, torch.Tensor]]:
    return [tiny_batch(model, rows=16, length=16, seed=seed) for seed in range(4)]


@pytest.mark.parametrize("method", ["refit", "stat"])
@pytest.mark.parametrize("widths", ["uniform", "per-layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_ends_in_a_folder_that_computes_what_is_in_memory(
    family: str, widths: str, method: str, tmp_path: Path
) -> None:
    model = built(family)
    dense = sum(parameter.numel() for parameter in model.parameters())
    sites = anatomy_of(model).sites
    result = statprune.compress(
        model, data=data_of(model), keep=0.6, method=method, widths=widths, out=tmp_path / "out"
    )
    assert result.folder is not None
    assert result.folder.stock or widths == "per-layer"
    cost = Cost("params", 16)
    left = sum(parameter.numel() for parameter in result.model.parameters())
    assert dense - left == cost.dense(sites) - cost.of_plan(result.plan, sites)
    assert 0.3 * cost.dense(sites) < cost.of_plan(result.plan, sites) <= 0.6 * cost.dense(sites)
    opened = AutoModelForCausalLM.from_pretrained(result.folder.path).eval()
    assert type(opened) is type(result.model)
    batch = tiny_batch(model, seed=9)
    with torch.no_grad():
        expected, found = result.model(**batch).logits, opened(**batch).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_macs_count_the_experts_of_a_token_and_parameters_all_of_them() -> None:
    model = tiny_model("mixtral", num_local_experts=8)
    site = anatomy_of(model).sites[1]
    assert (site.parameters_per_unit, site.macs_per_unit) == (8 * 3 * 32, 2 * 3 * 32)
    result = statprune.compress(model, data=data_of(model), keep=0.7, of="macs", dry_run=True)
    assert result.record["cost"]["macs"]["share"] <= 0.7


def test_one_measurement_serves_a_mixture(tmp_path: Path) -> None:
    model = built("qwen2_moe")
    model.save_pretrained(tmp_path / "dense")
    statprune.plan(str(tmp_path / "dense"), data=data_of(model), out=tmp_path / "measured")
    for keep in (0.8, 0.5):
        result = statprune.compress(measured=tmp_path / "measured", keep=keep)
        shares = result.record["cost"]["params"]["share"]
        assert keep - 0.15 < shares <= keep


def test_latency_is_timed_at_widths_that_run() -> None:
    model = built("mixtral")
    sites = anatomy_of(model).sites
    found = time_widths(model, anatomy_of(model), tiny_batch(model))
    assert found.of_plan(full(sites), sites) > 0
    assert all(found.of_width(site, 8) > 0 for site in sites if site.experts)
