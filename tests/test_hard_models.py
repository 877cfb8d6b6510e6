"""Hard models and hard data, end to end: near the answer within a bound, or refused with the place's name.

Bounds are of the relative error of the outputs. What is redundant may cost rounding, ROUNDING eps of the
model's dtype; the refit also its damping (linalg/held_out.py LOCAL), which it pays at every site. What few
tokens can tell is preserved on these tokens, up to as much rounding as consumers have grown. All bounds:
docs/trust.md.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.engine import passage
from statprune.errors import NonFiniteError
from statprune.linalg.held_out import LOCAL
from statprune.surgery.linear import weight_of
from tests.contracts.test_architectures import producers_rows
from tests.tiny import tiny_batch, tiny_model

ROUNDING = 16
DAMPED = 50
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
Batches = list[dict[str, Tensor]]


def copied(model: PreTrainedModel) -> None:
    """Half the units of every site are copies of the others."""
    each_of_half(model, lambda own, other: own.copy_(other))


def dead(model: PreTrainedModel) -> None:
    """Half the units of every site never move."""
    each_of_half(model, lambda own, _: own.zero_())


def unread(model: PreTrainedModel) -> None:
    """Besides, nothing is read in the first block."""
    dead(model)
    anatomy = anatomy_of(model)
    for site in anatomy.sites_of_block(0):
        weight_of(module_at(anatomy.blocks[0], site.consumer)).zero_()


def each_of_half(model: PreTrainedModel, change: Callable[[Tensor, Tensor], object]) -> None:
    for site in anatomy_of(model).sites:
        for unit in range(site.units // 2, site.units):
            twin = producers_rows(model, site, unit - site.units // 2)
            pairs = zip(producers_rows(model, site, unit), twin, strict=True)
            for (weight, bias, rows), (_, _, others) in pairs:
                changed = weight[rows]
                change(changed, weight[others])
                weight[rows] = changed
                if bias is not None:
                    changed = bias[rows]
                    change(changed, bias[others])
                    bias[rows] = changed


def half(model: PreTrainedModel) -> dict[str, int]:
    return {site.name: 24 if site.experts else site.units // 2 for site in anatomy_of(model).sites}


def samples(model: PreTrainedModel, rows: int, length: int, seed: int) -> dict[str, Tensor]:
    return tiny_batch(model, rows=rows, length=length, seed=seed)


def plain(model: PreTrainedModel) -> Batches:
    return [samples(model, 16, 12, seed) for seed in (1, 2)]


def alike(model: PreTrainedModel) -> Batches:
    """One token, at twelve places, in all samples."""
    batch = samples(model, 8, 12, 1)
    return [{name: ids if name.endswith("mask") else torch.full_like(ids, 7) for name, ids in batch.items()}]


@torch.no_grad()
def damage(model: PreTrainedModel, data: Batches, test: dict[str, Tensor], method: str) -> float:
    """The relative error of the outputs for `test`, of `model` cut to half of its units."""
    thin = deepcopy(model)
    statprune.compress(thin, data=data, plan=half(model), method=method)
    assert all(bool(torch.isfinite(weight).all()) for weight in thin.parameters())
    return off_by(model, thin, test)


@torch.no_grad()
def off_by(model: PreTrainedModel, thin: PreTrainedModel, test: dict[str, Tensor]) -> float:
    before = model(**test).logits.double()
    return float((thin(**test).logits.double() - before).norm() / before.norm())


def growth(model: PreTrainedModel, thin: PreTrainedModel) -> float:
    """How much larger a consumer's weight has become, at most: so much does rounding grow."""
    largest = 1.0
    for site in anatomy_of(model).sites:
        old, new = (
            weight_of(module_at(anatomy_of(each).blocks[site.block], site.consumer)).double()
            for each in (model, thin)
        )
        largest = max(largest, float(new.norm() / old.norm()))
    return largest


def bound(dtype: torch.dtype, method: str) -> float:
    return ROUNDING * torch.finfo(dtype).eps + (DAMPED * LOCAL if method == "refit" else 0.0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen2_moe", "bert", "gpt2"])
@pytest.mark.parametrize("change", [copied, dead, unread])
@pytest.mark.parametrize("method", ["stat", "refit"])
@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_what_is_redundant_goes_for_nothing(
    family: str, change: Callable[[PreTrainedModel], None], method: str, dtype: torch.dtype
) -> None:
    model = tiny_model(family).double()
    change(model)
    found = damage(model.to(dtype), plain(model), samples(model, 8, 12, 9), method)
    assert found <= bound(dtype, method)


@pytest.mark.parametrize("family", ["llama", "qwen2", "bert", "gpt2"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 12)])
def test_fewer_tokens_than_units_are_preserved(
    family: str, dtype: torch.dtype, rows: int, length: int
) -> None:
    """As many independent activations as there are tokens: half of the units hold them."""
    model = tiny_model(family).to(dtype)
    require_preserved(model, [samples(model, rows, length, 1)], "stat")


def require_preserved(model: PreTrainedModel, data: Batches, method: str) -> None:
    thin = deepcopy(model)
    statprune.compress(thin, data=data, plan=half(model), method=method)
    assert all(bool(torch.isfinite(weight).all()) for weight in thin.parameters())
    assert off_by(model, thin, data[0]) <= bound(model.dtype, method) * growth(model, thin)


@pytest.mark.parametrize("family", ["llama", "qwen2", "bert", "gpt2"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["stat", "refit"])
def test_constant_inputs_are_preserved(family: str, dtype: torch.dtype, method: str) -> None:
    model = tiny_model(family).to(dtype)
    require_preserved(model, alike(model), method)


@pytest.mark.parametrize("family", ["llama", "qwen2_moe", "bert", "gpt2"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["stat", "refit"])
def test_ordinary_models_lose_what_they_lose_in_float64(family: str, dtype: torch.dtype, method: str) -> None:
    model = tiny_model(family)
    test = samples(model, 8, 12, 9)
    wanted = damage(deepcopy(model).double(), plain(model), test, method)
    found = damage(model.to(dtype), plain(model), test, method)
    assert abs(found - wanted) <= bound(dtype, "stat") * (1 + wanted)


@torch.no_grad()
def with_outliers(family: str) -> PreTrainedModel:
    """Norms make one channel ten thousand times as large as the others."""
    model = tiny_model(family)
    for name, weight in model.named_parameters():
        if weight.ndim == 1 and name.endswith("weight"):
            weight[3] = 1e4
    return model


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("method", ["stat", "refit"])
def test_outlier_channels_lose_what_they_lose_in_float64(family: str, method: str) -> None:
    model = with_outliers(family)
    test = samples(model, 8, 12, 9)
    wanted = damage(deepcopy(model).double(), plain(model), test, method)
    found = damage(model, plain(model), test, method)
    assert abs(found - wanted) <= 1e4 * torch.finfo(torch.float32).eps * (1 + wanted)


@pytest.mark.parametrize("method", ["stat", "refit"])
def test_what_overflows_half_precision_is_refused_by_name(method: str) -> None:
    model = with_outliers("llama").half()
    with pytest.raises(NonFiniteError, match=r"blocks\.0.* NaN or infinite.* Nothing was written\."):
        statprune.compress(model, data=plain(model), plan=half(model), method=method)


@pytest.mark.parametrize("method", ["stat", "refit"])
@torch.no_grad()
def test_weights_that_half_precision_does_not_hold_are_refused_by_name(method: str) -> None:
    """Two copies of a unit become one that is read by the sum of both."""
    model = tiny_model("llama")
    copied(model)
    block = anatomy_of(model).blocks[2]
    for path, other in (("self_attn.o_proj", "self_attn.v_proj"), ("mlp.down_proj", "mlp.up_proj")):
        weight = weight_of(module_at(block, path))
        weight.mul_(6e4 / weight.abs().max())
        units = weight.shape[1] // 2 if "mlp" in path else 16
        weight[:, units:] = weight[:, :units]
        weight_of(module_at(block, other)).div_(1e5)
    before = {name: value.clone() for name, value in model.half().state_dict().items()}
    message = (
        r"blocks\.2\.\w+, read by .*new weights are NaN or infinite in torch\.float16.*Nothing was written"
    )
    with pytest.raises(NonFiniteError, match=message):
        statprune.compress(model, data=plain(model), plan=half(model), method=method)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["stat", "refit"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@torch.no_grad()
def test_models_with_a_weight_that_is_no_number_are_refused(method: str, wrong: float) -> None:
    model = tiny_model("llama")
    weight_of(module_at(anatomy_of(model).blocks[1], "mlp.up_proj"))[3, 3] = wrong
    with pytest.raises(
        NonFiniteError, match=r"mlp\.up_proj\.weight holds . NaN and . infinite of 1280 values"
    ):
        statprune.compress(model, data=plain(model), plan=half(model), method=method)


@torch.no_grad()
def test_activations_whose_squares_overflow_float32_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where products are float32, as with many tokens; they are not taken for constant."""
    monkeypatch.setattr(passage, "exact", lambda _: False)
    model = tiny_model("llama")
    plan = {"blocks.1.feed_forward": 30}
    large, small = deepcopy(model), model
    block = anatomy_of(large).blocks[1]
    weight_of(module_at(block, "mlp.up_proj")).mul_(2.0**70)
    weight_of(module_at(block, "mlp.down_proj")).mul_(2.0**-70)
    made = [statprune.compress(each, data=plain(each), plan=plan) for each in (large, small)]
    assert made[0].trace.sites[0].kept == made[1].trace.sites[0].kept
    test = samples(small, 8, 12, 9)
    after = [each.model(**test).logits for each in made]
    torch.testing.assert_close(after[0], after[1], rtol=1e-3, atol=1e-3)
