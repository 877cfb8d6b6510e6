"""How much tokens count: by their variance, within bounds; where no norm reads them, alike."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.engine.row_weights import LEAST, row_weights_of
from tests.tiny import tiny_batch, tiny_model

SITE = anatomy_of(tiny_model("bert")).sites[0]


def hidden(sizes: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """One token of each size."""
    rows = torch.tensor([[1.0, -1.0, 3.0, -3.0]]).repeat(len(sizes), 1)
    return (rows * torch.tensor(sizes)[:, None]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_token_counts_as_a_norm_has_it(dtype: torch.dtype) -> None:
    found = row_weights_of(SITE, hidden([1.0, 2.0, 0.5, 64.0], dtype))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.25, 4.0, 64.0**-2]).to(found) / 5)


def test_a_token_next_to_nothing_does_not_rule() -> None:
    found = row_weights_of(SITE, hidden([1.0, 1.0, 1.0, 1e-9]))
    assert found[3] / found[0] == pytest.approx(1 / LEAST)


@pytest.mark.parametrize("sizes", [[0.0, 0.0, 0.0], []])
def test_where_there_is_nothing_all_count_alike(sizes: list[float]) -> None:
    assert row_weights_of(SITE, hidden(sizes)).tolist() == [1.0] * len(sizes)


def test_squares_beyond_the_dtype() -> None:
    found = row_weights_of(SITE, hidden([1.0, 1e25, 1.0]))
    assert bool(((found > 0) & torch.isfinite(found)).all())
    assert found[1] < 1e-30


def test_what_no_norm_reads() -> None:
    sites = anatomy_of(tiny_model("qwen2_moe")).sites
    assert [site.name for site in sites if not site.normalised] == [
        site.name for site in sites if site.name.endswith("shared_expert")
    ]
    plain = replace(SITE, normalised=False)
    assert row_weights_of(plain, hidden([1.0, 9.0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("model_type", ["bart", "whisper", "t5"])
def test_blocks_may_be_called_with_tensors_of_other_lengths(model_type: str) -> None:
    """A decoder's blocks get what the encoder returned, which is longer here."""
    data = [tiny_batch(tiny_model(model_type), rows=6, seed=seed) for seed in range(2)]
    for batch in data:
        for name in ("decoder_input_ids", "decoder_attention_mask"):
            batch[name] = batch[name][:, :7]
    measured = statprune.plan(tiny_model(model_type), data=data, latency=False)
    anatomy = anatomy_of(tiny_model(model_type))
    assert all(measured.curves[site.name].error[0] > 0.5 for site in anatomy.sites)
    made = statprune.compress(tiny_model(model_type), data=data, keep=0.7)
    assert made.trace.divergence is not None


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["gemma2", "qwen2_moe", "llama"])
def test_a_site_that_adds_nothing(model_type: str) -> None:
    """Its output is zero whatever it reads, and with a norm behind it, nothing is relative to anything."""
    model = tiny_model(model_type)
    site = anatomy_of(model).sites[1]
    block = anatomy_of(model).blocks[site.block]
    consumer = block.get_submodule(site.consumer)
    for values in consumer.parameters():
        values.zero_()
    data = [tiny_batch(model, rows=80, length=30, seed=seed) for seed in range(4)]
    made = statprune.compress(model, data=data, plan={site.name: max(1, site.units // 2)})
    (found,) = (each for each in made.trace.sites if each.site == site.name)
    assert found.relative_error == pytest.approx(0, abs=1e-6)
