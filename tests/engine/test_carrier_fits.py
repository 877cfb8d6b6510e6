"""Fits of a perceptron's producers: its own error falls, and a step too far is undone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.engine import carrier_fits
from statprune.engine.carrier_fits import Perceptron, fit_perceptron
from statprune.surgery.cut import cut, own_columns
from statprune.surgery.linear import weight_of
from tests.tiny import tiny_model

ROWS, KEPT = 3000, 24
RUNS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "llama": lambda block, X: block.mlp(X),
    "phi3": lambda block, X: block.mlp(X),
    "modernbert": lambda block, X: block.mlp(X),
    "gpt2": lambda block, X: block.mlp(X),
    "bert": lambda block, X: block.output.dense(block.intermediate(X)),
    "opt": lambda block, X: block.fc2(block.activation_fn(block.fc1(X))),
}
"""What a block's perceptron returns, by the model's own code; families with and without gates and biases."""


def cut_block(family: str) -> tuple[nn.Module, Site, Tensor, Tensor]:
    """A block whose perceptron is cut, its site, what it reads, and what it returned before."""
    model = tiny_model(family)
    anatomy = anatomy_of(model)
    block = anatomy.blocks[1]
    site = next(each for each in anatomy.sites_of_block(1) if each.kind == "feed_forward")
    X = torch.randn(ROWS, 32, generator=torch.Generator().manual_seed(1))
    target = RUNS[family](block, X)
    kept = torch.arange(KEPT)
    cut(block, site, kept, own_columns(block, site, kept))
    return block, site, X, target


def error(family: str, block: nn.Module, X: Tensor, target: Tensor) -> float:
    return float((RUNS[family](block, X) - target).square().sum())


@torch.no_grad()
@pytest.mark.parametrize("family", list(RUNS))
def test_the_error_of_the_perceptron_itself_falls(family: str) -> None:
    block, site, X, target = cut_block(family)
    consumer = module_at(block, site.consumer)
    left = target - RUNS[family](block, X)
    with_ones = torch.cat([carrier_fits.Perceptron(block, site, KEPT, X).read(), torch.ones(ROWS, 1)], dim=1)
    solution = torch.linalg.lstsq(with_ones.double(), left.double()).solution
    alone = float((left - with_ones.double() @ solution).square().sum())
    bias = None if consumer.bias is None else consumer.bias.clone()
    fit_perceptron(block, site, KEPT, X, target, torch.float32)
    assert error(family, block, X, target) < 0.95 * alone, "no better than fitting the consumer alone"
    assert bias is None or not torch.equal(consumer.bias, bias)


@torch.no_grad()
@pytest.mark.parametrize("family", list(RUNS))
def test_factors_are_slopes(family: str) -> None:
    block, site, X, _ = cut_block(family)
    own = Perceptron(block, site, KEPT, X)
    for producer in (own.activated, own.up):
        if producer is None:
            continue
        inputs = producer.inputs(X)
        D = torch.randn(KEPT, inputs.shape[1], generator=torch.Generator().manual_seed(2))
        before, slopes, step = own.read(), own.factors(producer), 1e-3
        undo = producer.add(step * D)
        own.run(producer)
        moved = (own.read() - before) / step
        undo()
        own.run(producer)
        wanted = slopes * (inputs @ D.T)
        far = (moved - wanted).abs() > 0.02 * (wanted.abs().mean() + wanted.abs())
        assert float(far.float().mean()) < 0.02  # curvature, and kinks that a step or a slope goes across


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "bert", "gpt2"])
def test_a_step_that_does_not_help_is_undone(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block, site, X, target = cut_block(family)
    monkeypatch.setattr(carrier_fits, "STEPS", (-1.0, -0.5))
    before = [each.clone() for each in block.parameters()]
    fit_perceptron(block, site, KEPT, X, target, torch.float32)
    assert all(torch.equal(old, new) for old, new in zip(before, block.parameters(), strict=True))


@torch.no_grad()
def test_a_step_too_far_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    block, site, X, target = cut_block("bert")
    weight = weight_of(module_at(block, "intermediate.dense")).clone()
    moved = []
    for steps in ((8.0, 1.0), (1.0,)):
        monkeypatch.setattr(carrier_fits, "STEPS", steps)
        fresh = cut_block("bert")[0]
        fit_perceptron(fresh, site, KEPT, X, target, torch.float32)
        moved.append(weight_of(module_at(fresh, "intermediate.dense")) - weight)
    assert bool(moved[0].any())
    torch.testing.assert_close(*moved)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_other_dtypes_it_falls_as_far(family: str, dtype: torch.dtype) -> None:
    errors = []
    for each in (torch.float32, dtype):
        block, site, X, target = cut_block(family)
        block.to(each)
        wide = torch.promote_types(each, torch.float32)
        fit_perceptron(block, site, KEPT, X.to(wide), target.to(wide), wide)
        errors.append(error(family, block.to(wide), X.to(wide), target.to(wide)))
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_an_activation_may_work_in_place(family: str) -> None:
    found = []
    for in_place in (False, True):
        block, site, X, target = cut_block(family)
        owner = block.mlp if family == "llama" else block.intermediate
        name = "act_fn" if family == "llama" else "intermediate_act_fn"
        setattr(owner, name, nn.SiLU(inplace=in_place))
        fit_perceptron(block, site, KEPT, X, target, torch.float32)
        found += [weight_of(module_at(block, site.consumer))]
    torch.testing.assert_close(*found, rtol=0, atol=0)


@torch.no_grad()
def test_a_step_that_the_dtype_does_not_hold_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    block, site, X, target = cut_block("bert")
    block.half()
    monkeypatch.setattr(carrier_fits, "STEPS", (1e9,))
    before = [each.clone() for each in block.parameters()]
    fit_perceptron(block, site, KEPT, X, target, torch.float32)
    assert all(torch.equal(old, new) for old, new in zip(before, block.parameters(), strict=True))


@torch.no_grad()
def test_rows_that_are_constant_or_no_numbers_leave_weights_finite() -> None:
    for value in (1.0, 0.0, torch.nan, 1e30):
        block, site, X, target = cut_block("llama")
        fit_perceptron(block, site, KEPT, torch.full_like(X, value), target, torch.float32)
        assert all(bool(torch.isfinite(each).all()) for each in block.parameters())


@torch.no_grad()
def test_nothing_missing_changes_nothing() -> None:
    block, site, X, _ = cut_block("llama")
    before = [each.clone() for each in block.parameters()]
    fit_perceptron(block, site, KEPT, X, RUNS["llama"](block, X), torch.float32)
    for old, new in zip(before, block.parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=1e-4, rtol=1e-4)


def test_a_site_without_an_activation_is_refused() -> None:
    model = tiny_model("llama")
    attention = anatomy_of(model).sites[0]
    with pytest.raises(ValueError, match="through which activation"):
        Perceptron(anatomy_of(model).blocks[0], attention, 2, torch.ones(3, 32))
