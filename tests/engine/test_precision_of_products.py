"""Many float32 activations are multiplied in float32; few, or float64, in float64."""

import pytest
import torch

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.engine.backends import ROWS_FOR_FLOAT32, maker
from statprune.engine.trial import least_read
from statprune.linalg import gram
from statprune.linalg.gram import Gram
from tests.tiny import tiny_batch, tiny_model

COLUMNS = 24


def summed(dtype: torch.dtype, tokens: int, rows: torch.Tensor, least: float | None = None) -> torch.Tensor:
    make = maker(
        "gram",
        samples=8,
        tokens=tokens,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        dtype=dtype,
        least=least,
    )
    gram = make(COLUMNS)
    gram.update(rows)
    assert isinstance(gram, Gram)
    return gram.matrix


@pytest.mark.parametrize(
    ("dtype", "tokens", "exact"),
    [
        (torch.float32, ROWS_FOR_FLOAT32 * COLUMNS, False),
        (torch.bfloat16, ROWS_FOR_FLOAT32 * COLUMNS, False),
        (torch.float32, ROWS_FOR_FLOAT32 * COLUMNS - 1, True),
        (torch.float64, ROWS_FOR_FLOAT32 * COLUMNS, True),
    ],
)
def test_products_are_as_fine_as_they_need_to_be(dtype: torch.dtype, tokens: int, exact: bool) -> None:
    rows = torch.randn(ROWS_FOR_FLOAT32 * COLUMNS, COLUMNS, generator=torch.Generator().manual_seed(1))
    expected = rows.double().T @ rows.double()
    norms = rows.double().norm(dim=0)
    off = ((summed(dtype, tokens, rows) - expected).abs() / torch.outer(norms, norms)).max()
    assert off <= (1e-14 if exact else 1e-6)
    assert (off > 1e-12) != exact


def test_few_rows_at_a_site_are_multiplied_in_float64_however_many_tokens_there_are() -> None:
    """Of two stacks the one with fewer tokens counts; an expert is given a part of them."""
    bart = [{"attention_mask": torch.ones(4, 90), "decoder_attention_mask": torch.ones(4, 6)}]
    assert least_read(anatomy_of(tiny_model("bart")), bart) == 24
    anatomy = anatomy_of(tiny_model("mixtral"))
    experts = next(site for site in anatomy.sites if site.experts)
    assert (
        least_read(anatomy, [{"attention_mask": torch.ones(4, 90)}]) == 360 * experts.active / experts.experts
    )
    for least, exact in ((ROWS_FOR_FLOAT32 * COLUMNS, False), (ROWS_FOR_FLOAT32 * COLUMNS - 1, True)):
        rows = torch.randn(64, COLUMNS, generator=torch.Generator().manual_seed(1))
        found = summed(torch.float32, 10**6, rows, least)
        assert bool(((found - rows.double().T @ rows.double()).abs() <= 1e-12).all()) == exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_few_tokens_only_wide_sites_of_a_refit_are_multiplied_in_float32(monkeypatch, dtype) -> None:
    """And none of a model in float64."""

    def refitted(few_columns: int) -> torch.Tensor:
        monkeypatch.setattr(gram, "FEW_COLUMNS", few_columns)
        model = tiny_model("llama").to(dtype)
        site = anatomy_of(model).sites[1]
        assert site.units * site.columns == 40
        data = [tiny_batch(model, rows=20, length=12, seed=1)]
        made = statprune.compress(model, data=data, plan={site.name: 21}, method="refit").model
        return made.model.layers[0].mlp.down_proj.weight.detach()

    narrow, wide = refitted(41), refitted(40)
    torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-5)
    assert torch.equal(narrow, wide) == (dtype == torch.float64)
