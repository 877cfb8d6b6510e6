"""Encoders with a decoder, and images: redundancy is free, caches agree, a measurement answers budgets."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from tests.test_task_heads import batches, inputs, outputs
from tests.tiny import tiny_batch, tiny_model

TWO_STACKS = ["bart", "t5", "whisper"]


@torch.no_grad()
def doubled(model: PreTrainedModel, stack: str) -> dict[str, int]:
    """Make the second half of the units of every site of `stack` copies of the first; a plan of the first."""
    widths = {}
    for site in anatomy_of(model).sites:
        if site.name.startswith(f"{stack}."):
            block, half = anatomy_of(model).blocks[site.block], site.units // 2
            for path in {producer.path for producer in site.producers}:
                for values in module_at(block, path).parameters():
                    first = values[: len(values) // 2].clone()
                    values[len(values) // 2 :] = first
            widths[site.name] = half
    return widths


def lost(model: PreTrainedModel, plan: dict[str, int], method: str) -> float:
    """The squared error of the logits, over their size, on inputs that were not calibrated with."""
    unseen = inputs(model, 9)
    dense = outputs(model, unseen)["logits"]
    data = [inputs(model, seed, rows=24) for seed in range(4)]
    statprune.compress(model, data=data, plan=plan, method=method)
    assert all(site.units == plan.get(site.name, site.units) for site in anatomy_of(model).sites)
    return float((outputs(model, unseen)["logits"] - dense).square().sum() / dense.square().sum())


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("model_type", TWO_STACKS)
def test_units_that_are_copies_of_others_go_for_nothing(model_type: str, stack: str) -> None:
    """Up to rounding by method stat; up to the damping of its fits, which favours no unit, by refit."""
    model = tiny_model(model_type)
    plan = doubled(model, stack)
    assert len(plan) == len([site for site in anatomy_of(model).sites if site.name.startswith(stack)])
    assert lost(model, plan, "stat") < 1e-10
    again = tiny_model(model_type)
    doubled(again, stack)
    assert lost(again, plan, "refit") < lost(tiny_model(model_type), plan, "refit") / 100


@torch.no_grad()
@pytest.mark.parametrize("model_type", TWO_STACKS)
def test_a_compressed_model_writes_the_same_with_a_cache(model_type: str) -> None:
    model = tiny_model(model_type)
    statprune.compress(model, data=batches(model), keep=0.5, multiple=1)
    batch = {name: value for name, value in inputs(model, 9).items() if not name.startswith("decoder")}

    def written(use_cache: bool) -> tuple[Tensor, Tensor]:
        found = model.generate(
            **batch,
            use_cache=use_cache,
            do_sample=False,
            min_new_tokens=10,
            max_new_tokens=10,
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert (found.past_key_values is not None) is use_cache
        return found.sequences, torch.stack(found.logits, dim=1)

    (with_cache, logits), (without, expected) = written(True), written(False)
    assert expected.shape[1] == 10
    assert (expected[0] - expected[1]).abs().max() > 1e-2, "what is written depends on the input"
    assert torch.equal(with_cache, without)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["bart", "t5", "whisper", "vit"])
def test_a_measurement_answers_as_a_run_of_its_own(model_type: str, tmp_path: Path) -> None:
    """Pixels and sound survive the folder bit for bit: the compressed weights are the same."""
    measured = statprune.plan(
        tiny_model(model_type), data=batches(tiny_model(model_type)), out=tmp_path / "m"
    )
    assert measured.latency is not None
    for of in ("params", "macs"):
        once, twice = tiny_model(model_type), tiny_model(model_type)
        options = {"keep": 0.7, "of": of, "multiple": 4}
        first = statprune.compress(once, data=batches(once), **options)
        second = statprune.compress(twice, measured=tmp_path / "m", **options, out=tmp_path / of)
        assert first.plan == second.plan
        for name, value in once.state_dict().items():
            assert torch.equal(value, twice.state_dict()[name]), name


@pytest.mark.parametrize("model_type", TWO_STACKS)
@pytest.mark.parametrize("method", ["refit", "stat"])
def test_uniform_widths_are_the_same_in_every_block(model_type: str, method: str) -> None:
    model = tiny_model(model_type)
    result = statprune.compress(model, data=batches(model), keep=0.6, method=method, widths="uniform")
    by_part: dict[str, set[int]] = {}
    for site in anatomy_of(model).sites:
        by_part.setdefault(site.kind, set()).add(result.plan.widths[site.name])
    assert all(len(widths) == 1 for widths in by_part.values()), by_part


def test_macs_count_the_tokens_that_an_image_has() -> None:
    model = tiny_model("vit")
    assert tiny_batch(model)["attention_mask"].shape[1] == 10
    result = statprune.compress(model, data=batches(model), keep=0.6, of="macs", multiple=1)
    assert result.record["context"] == 10
    assert (result.record["data"]["seq_len"], result.record["data"]["tokens"]) == (10, 180)


@pytest.mark.parametrize("model_type", ["vit", "whisper"])
def test_numbers_follow_the_dtype_of_the_model(model_type: str) -> None:
    model = tiny_model(model_type).to(torch.bfloat16)
    given = batches(tiny_model(model_type))
    assert given[0][model.main_input_name].dtype == torch.float32
    result = statprune.compress(model, data=given, keep=0.6, multiple=1)
    assert result.record["cost"]["params"]["share"] <= 0.6
