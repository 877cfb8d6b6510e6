"""Fits and curves of experts against independent computations on whole activations."""

import numpy as np
import pytest
import torch
from torch import Tensor

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.budget.plan import fit
from statprune.engine.divergence import probe_batches
from statprune.engine.probe import Probe
from statprune.engine.refit import narrow, refit
from statprune.engine.survey import survey, to_survey
from statprune.engine.trace import Trace
from tests.tiny import tiny_batch, tiny_model

DAMPING = 1e-4


def batches_of(model) -> list[dict[str, Tensor]]:
    batches = [tiny_batch(model, rows=24, length=12, seed=seed) for seed in (1, 2)]
    batches[1]["attention_mask"][3:, 10:] = 0
    return batches


@torch.no_grad()
def by_hand(model, batches: list[dict[str, Tensor]]) -> list[np.ndarray]:
    """Of every expert of the first block its neurons, weighted, (rows, 40), from what the module is given.

    By the router's weights, and over the spread of the hidden state behind the block.
    """
    block, found = model.model.layers[0], [[] for _ in range(4)]
    for batch in batches:
        seen: list[Tensor] = []
        behind: list[Tensor] = []
        hook = block.mlp.experts.register_forward_pre_hook(lambda _, args, seen=seen: seen.extend(args))
        after = block.register_forward_hook(lambda _, __, out, behind=behind: behind.append(out))
        model(**batch)
        hook.remove()
        after.remove()
        hidden, picked, weights = (each.numpy() for each in seen)
        spread = behind[0].flatten(0, 1).numpy().std(axis=1)
        real = batch["attention_mask"].bool().reshape(-1).numpy()
        for expert in range(4):
            packed = block.mlp.experts.gate_up_proj[expert].numpy()
            gate, up = hidden @ packed[:40].T, hidden @ packed[40:].T
            neurons = gate / (1 + np.exp(-gate)) * up
            weight = np.where(picked == expert, weights, 0).sum(axis=1)
            found[expert].append((neurons * (weight / spread)[:, None])[real & (weight > 0)])
    return [np.concatenate(rows) for rows in found]


@torch.no_grad()
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_each_expert_is_its_own_least_squares_fit(family: str) -> None:
    """Nothing is lost before the first block's experts: its fit is the local one, on the tokens of each."""
    model = tiny_model(family).double()
    batches = batches_of(model)
    rows = by_hand(model, batches)
    W = model.model.layers[0].mlp.experts.down_proj.numpy().copy()
    trace = Trace()
    sites = anatomy_of(model).sites
    refit(model, anatomy_of(model), batches, fit({"blocks.0.experts": 16}, sites), trace)
    made = next(each for each in trace.sites if each.site == "blocks.0.experts")
    missed = energy = 0.0
    for expert, kept in enumerate(made.kept):
        Z, columns = rows[expert], list(kept)
        G = Z.T @ Z
        part = G[np.ix_(columns, columns)]
        damped = part + DAMPING * np.trace(part) / len(part) * np.eye(len(part))
        wanted = np.linalg.solve(damped, G[columns] @ W[expert].T).T
        found = model.model.layers[0].mlp.experts.down_proj[expert].numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
        missed += np.square(Z @ W[expert].T - Z[:, columns] @ wanted.T).sum()
        energy += np.square(Z @ W[expert].T).sum()
    assert made.relative_error == pytest.approx(np.sqrt(missed / energy), rel=1e-3)


@torch.no_grad()
def test_what_was_lost_before_is_made_good() -> None:
    """With all experts left whole behind narrowed attention, the block ends nearer to the dense one."""
    ends = {}
    for steps in ("both", "none"):
        dense, thin = tiny_model("mixtral").double(), tiny_model("mixtral").double()
        batches = [tiny_batch(dense, rows=48, length=12, seed=seed) for seed in range(6)]
        anatomy = anatomy_of(thin)
        plan = fit({"blocks.1.attention": 1}, anatomy.sites)
        options = {"steps": None} if steps == "both" else {"steps": [_attention_alone]}
        refit(thin, anatomy, batches, plan, Trace(), **options)
        inputs = tiny_batch(dense, rows=24, length=12, seed=77)
        returned = [model(**inputs, output_hidden_states=True).hidden_states[2] for model in (dense, thin)]
        ends[steps] = float((returned[0] - returned[1]).norm())
    assert ends["both"] < 0.97 * ends["none"]


def _attention_alone(at, site, count, trace) -> None:
    if site.kind == "attention":
        narrow(at, site, count, trace)


@torch.no_grad()
def test_the_survey_adds_up_the_errors_of_all_experts() -> None:
    model = tiny_model("mixtral").double()
    batches = batches_of(model)
    anatomy = anatomy_of(model)
    probe = Probe(model, anatomy, probe_batches(batches, of_tokens=True))
    before = module_at(anatomy.blocks[0], "mlp.experts").down_proj.clone()
    curve = survey(model, anatomy, to_survey(anatomy, batches), probe)[0]["blocks.0.experts"]
    assert torch.equal(module_at(anatomy.blocks[0], "mlp.experts").down_proj, before)
    assert curve.error[0] == pytest.approx(1, abs=1e-3)
    assert curve.error[-1] == 0
    assert (np.diff(curve.error) <= 0).all()
    assert [damage > 0 for width, damage in curve.measured if width < 40]
    # The same experts, narrowed by the refit to the same width: what it misses is what the curve says.
    trace = Trace()
    refit(model, anatomy, batches, fit({"blocks.0.experts": 24}, anatomy.sites), trace)
    found = next(each.relative_error for each in trace.sites if each.site == "blocks.0.experts")
    assert found**2 == pytest.approx(curve.error[24], rel=0.02)


def test_experts_are_surveyed_on_more_tokens() -> None:
    """Each expert gets a share of the tokens; narrow ones need no more than any site."""
    model = tiny_model("mixtral", intermediate_size=1024, num_local_experts=8)
    site = anatomy_of(model).sites[1]
    assert site.sparsity == 4
    batches = [tiny_batch(model, rows=64, length=60, seed=seed) for seed in range(6)]
    assert sum(int(batch["attention_mask"].sum()) for batch in to_survey(anatomy_of(model), batches)) > 15_000
