"""Damage curves against direct computation: least squares on whole activations, and models that are cut."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import statprune.engine.probe as probing
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.damage import DamageCurve
from statprune.engine.probe import Probe
from statprune.engine.survey import DAMPING, FEWEST_TOKENS, LEVELS, survey, to_survey
from statprune.surgery.linear import weight_of
from tests.engine.test_refit import seen_by
from tests.engine.test_stat import activations
from tests.tiny import random_cut, tiny_batch, tiny_model

SIZES = {"llama": {"intermediate_size": 12}, "gpt2": {"n_inner": 12}, "bert": {"intermediate_size": 12}}
"""So few neurons that they are taken away one by one."""


def batches_of(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    batches = [tiny_batch(model, rows=18, length=12, seed=seed) for seed in (1, 2)]
    batches[0]["attention_mask"][1:9, 8:] = 0
    return batches


def probed(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    batch = tiny_batch(model, rows=5, length=12, seed=3)
    batch["attention_mask"][2, 7:] = 0
    return [batch]


def surveyed(model: PreTrainedModel) -> dict[str, DamageCurve]:
    anatomy = anatomy_of(model)
    return survey(model, anatomy, batches_of(model), Probe(model, anatomy, probed(model)))[0]


def eliminated(Z: np.ndarray, W: np.ndarray, site: Site) -> tuple[list[int], list[float]]:
    """Units, the last one to go first, and the relative error of every width, each tried out by lstsq.

    The ridge is rows of its own: its target is the dense weight.
    """
    ridge = np.sqrt(DAMPING * np.square(Z).sum() / Z.shape[1]) * np.eye(Z.shape[1])
    rows, target = np.vstack([Z, ridge]), np.vstack([Z @ W.T, ridge @ W.T])

    def error(units: list[int]) -> float:
        columns = site.columns_of(torch.tensor(units, dtype=torch.int64)).numpy()
        B = np.linalg.lstsq(rows[:, columns], target, rcond=None)[0]
        return float(np.square(target - rows[:, columns] @ B).sum())

    left, gone, errors = list(range(site.units)), [], [0.0]
    while left:
        tried = {unit: error([each for each in left if each != unit]) for unit in left}
        cheapest = min(tried, key=tried.__getitem__)
        left.remove(cheapest)
        gone.append(cheapest)
        errors.append(tried[cheapest])
    return gone[::-1], [each / np.square(Z @ W.T).sum() for each in errors[::-1]]


@pytest.fixture(scope="module", params=SIZES)
def case(request: pytest.FixtureRequest):
    """A model, its curves, every site's order of units and errors by hand, and its activations, weighted."""
    model = tiny_model(request.param, **SIZES[request.param]).double()
    anatomy, seen = anatomy_of(model), activations(model, batches_of(model))
    for site in anatomy.sites:
        found = seen_by(model, batches_of(model), site.block)
        hidden = found[f"out {site.consumer}"] + sum(found[f"in {path}"] for path in site.residual)
        seen[site.name] = seen[site.name] / hidden.std(axis=1)[:, None]
    hand = {
        site.name: eliminated(
            seen[site.name], weight_of(module_at(anatomy.blocks[site.block], site.consumer)).numpy(), site
        )
        for site in anatomy.sites
    }
    return model, surveyed(model), hand, seen


def test_curves_are_the_errors_of_the_best_units_fitted_again(case) -> None:
    model, curves, hand, _ = case
    sites = anatomy_of(model).sites
    assert set(curves) == {site.name for site in sites} | {
        f"{s.name}.values" for s in sites if s.values_apart
    }
    for name, (_, errors) in hand.items():
        # Products are summed from float32.
        np.testing.assert_allclose(curves[name].error, errors, rtol=2e-4, atol=1e-6)


def test_the_widths_measured_are_the_widest_of_their_error(case) -> None:
    _, curves, _, _ = case
    for curve in (curve for name, curve in curves.items() if not name.endswith(".values")):
        wanted = {max(1, *(k for k in range(len(curve.error)) if curve.error[k] >= e)) for e in LEVELS}
        assert [width for width, _ in curve.measured] == sorted(w for w in wanted if curve.error[w] > 0)
        assert curve.measured


@torch.no_grad()
def test_the_divergence_measured_is_that_of_a_model_cut_at_that_site(case) -> None:
    """A copy, really cut, its consumer fitted by hand; the outputs of the whole model compared by numpy."""
    model, curves, hand, seen = case
    for site in anatomy_of(model).sites:
        Z = seen[site.name]
        W = weight_of(module_at(anatomy_of(model).blocks[site.block], site.consumer)).numpy()
        for width, found in curves[site.name].measured:
            kept = sorted(hand[site.name][0][:width])
            columns = site.columns_of(torch.tensor(kept)).numpy()
            part = Z[:, columns]
            ridge = DAMPING * np.square(part).sum() / len(columns)
            B = np.linalg.solve(part.T @ part + ridge * np.eye(len(columns)), part.T @ Z @ W.T)
            copy = random_cut(deepcopy(model), {site.name: kept})
            weight_of(module_at(anatomy_of(copy).blocks[site.block], site.consumer)).copy_(
                torch.from_numpy(B.T)
            )
            assert found == pytest.approx(kl(model, copy), rel=1e-3), (site.name, width)
            assert found > 1e-5


def kl(dense: PreTrainedModel, thin: PreTrainedModel) -> float:
    """KL(dense || thin), a real token."""
    (batch,) = probed(dense)
    real = batch["attention_mask"].bool()
    p, q = (torch.softmax(each(**batch).logits[real], dim=-1).numpy() for each in (dense, thin))
    return float((p * np.log(p / q)).sum(axis=1).mean())


@pytest.mark.parametrize("family", SIZES)
def test_the_model_is_as_it_was(family: str) -> None:
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    surveyed(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameters[name] is value for name, value in model.named_parameters())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_it_is_as_it_was_even_if_a_measurement_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    anatomy = anatomy_of(model)
    probe = Probe(model, anatomy, probed(model))

    def fail(*_) -> None:
        weight = anatomy.blocks[0].self_attn.o_proj.weight
        assert not torch.equal(weight, before["model.layers.0.self_attn.o_proj.weight"])
        raise KeyboardInterrupt

    monkeypatch.setattr(probing, "advance", fail)
    with pytest.raises(KeyboardInterrupt):
        survey(model, anatomy, batches_of(model), probe)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_site_that_does_nothing_has_no_damage() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
    curves = surveyed(model)
    assert not curves["blocks.1.feed_forward"].error.any()
    assert not curves["blocks.1.feed_forward"].damage().any()
    assert curves["blocks.2.feed_forward"].damage()[8] > 0


def test_progress_is_told_block_by_block() -> None:
    model, told = tiny_model("bert"), []
    anatomy = anatomy_of(model)
    survey(
        model,
        anatomy,
        batches_of(model),
        Probe(model, anatomy, probed(model)),
        lambda *now: told.append(now[:3]),
    )
    assert told == [*(("survey", done, 3) for done in (1, 2, 3)), ("compare", 1, 1)]


def test_as_many_tokens_as_the_curves_need() -> None:
    narrow, wide = tiny_model("llama"), tiny_model("llama", intermediate_size=2048)

    def tokens(model: PreTrainedModel, rows: int) -> int:
        batches = [tiny_batch(model, rows=rows, length=64, seed=seed) for seed in range(4)]
        return sum(int(each["attention_mask"].sum()) for each in to_survey(anatomy_of(model), batches))

    assert tokens(narrow, 40) == FEWEST_TOKENS == 64 * 64
    assert tokens(wide, 40) == 4 * 2048
    assert tokens(narrow, 10) == 4 * 10 * 64, "all there are"
