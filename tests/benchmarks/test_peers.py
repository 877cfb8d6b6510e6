"""Budgets, widths, scores and FLAP's biases against independent computations."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from benchmarks.quality.peers import PEERS, fluctuations, uniform_widths, wanda_scores, weight_norms
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.errors import BudgetError
from statprune.surgery.linear import weight_of
from tests.benchmarks.twins import batches_of, budget_of, consumers, reads_of, run_peer
from tests.tiny import tiny_batch, tiny_model

FAMILIES = ("llama", "bert", "gpt2", "opt", "distilbert")


# Every peer


@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_meets_its_budget_and_leaves_a_working_model(name: str, family: str, of: str) -> None:
    model = tiny_model(family)
    budget = budget_of(of)
    anatomy, widths = run_peer(name, model, budget)
    narrowed = anatomy_of(model)  # checks shapes against each other
    assert {s.name: s.units for s in narrowed.sites} == widths
    # The narrowed sites know of biases that were added.
    spent = sum(budget.cost.fixed(s) + s.units * budget.cost.per_unit(s) for s in narrowed.sites)
    limit = budget.limit(anatomy.sites)
    assert limit * 0.8 < spent <= limit
    assert all(widths[s.name] % 4 == 0 for s in anatomy.sites if s.kind == "feed_forward")
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    with torch.no_grad():
        assert torch.isfinite(model(**tiny_batch(model)).logits).all()


@pytest.mark.parametrize("name", [name for name in PEERS if name != "random"])
def test_no_peer_but_random_draws(name: str) -> None:
    one, other = tiny_model("llama"), tiny_model("llama")
    for model, seed in ((one, 0), (other, 1)):
        generator = torch.Generator().manual_seed(seed)
        PEERS[name](model, anatomy_of(model), batches_of(model), budget_of("params"), generator)
    for key, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@pytest.mark.parametrize("name", [name for name in PEERS if name != "mask-tuning"])
def test_nothing_changes_at_full_width(name: str) -> None:
    model = tiny_model("llama")
    dense = deepcopy(model.state_dict())
    run_peer(name, model, budget_of("params", keep=1.0))
    assert set(model.state_dict()) == set(dense)
    for key, value in model.state_dict().items():
        assert torch.equal(value, dense[key])


def test_mask_tuning_at_full_width_finds_scalars_of_one() -> None:
    for family in FAMILIES:
        model = tiny_model(family).double()
        dense = deepcopy(model.state_dict())
        run_peer("mask-tuning", model, budget_of("params", keep=1.0))
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, dense[key], rtol=1e-6, atol=1e-9)


# Uniform widths


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("keep", [0.4, 0.5, 0.6, 0.75, 0.9])
def test_uniform_widths_are_nearest_in_heads_and_fill_the_budget_with_neurons(
    family: str, keep: float
) -> None:
    sites = anatomy_of(tiny_model(family)).sites
    budget = budget_of("params", keep)
    widths = uniform_widths(sites, budget)
    heads, neurons = widths["blocks.0.attention"], widths["blocks.0.feed_forward"]
    assert set(widths.values()) == {heads, neurons}

    def cost(heads: int, neurons: int) -> int:
        each = {"attention": heads, "feed_forward": neurons}
        return sum(s.parameters_fixed + each[s.kind] * s.parameters_per_unit for s in sites)

    assert cost(heads, neurons) <= budget.limit(sites)
    assert neurons == 40 or cost(heads, neurons + 4) > budget.limit(sites)
    units = sites[0].units
    nearer = [n for n in range(1, units + 1) if abs(n - keep * units) < abs(heads - keep * units)]
    assert all(cost(n, 4) > budget.limit(sites) for n in nearer)


def test_uniform_widths_refuse_what_cannot_fit() -> None:
    sites = anatomy_of(tiny_model("llama")).sites
    with pytest.raises(BudgetError, match="no uniform widths fit"):
        uniform_widths(sites, budget_of("params", 0.05))


# Scores


def test_magnitude_by_hand() -> None:
    model = tiny_model("llama")
    anatomy = anatomy_of(model)
    attention, forward = anatomy.sites_of_block(1)
    own = anatomy.blocks[1].self_attn
    query, key, value = (p.weight.detach().double() for p in (own.q_proj, own.k_proj, own.v_proj))
    # Two key-value groups of two query heads of eight columns.
    for group in (0, 1):
        wide, narrow = slice(16 * group, 16 * group + 16), slice(8 * group, 8 * group + 8)
        parts = [query[wide], key[narrow], value[narrow], own.o_proj.weight.detach().double()[:, wide]]
        expected = sum(float((part**2).sum()) for part in parts) ** 0.5
        assert float(weight_norms(attention, anatomy.blocks[1])[group]) == pytest.approx(expected)
    mlp = anatomy.blocks[1].mlp
    rows = (mlp.gate_proj.weight[7], mlp.up_proj.weight[7], mlp.down_proj.weight[:, 7])
    expected = sum(float((row.detach().double() ** 2).sum()) for row in rows) ** 0.5
    assert float(weight_norms(forward, anatomy.blocks[1])[7]) == pytest.approx(expected)


def test_magnitude_of_a_fused_weight_by_hand() -> None:
    anatomy = anatomy_of(tiny_model("gpt2"))
    attn = anatomy.blocks[0].attn
    fused, out = attn.c_attn.weight.detach().double(), attn.c_proj.weight.detach().double()
    parts = [fused[:, 32 * part + 8 : 32 * part + 16] for part in range(3)] + [out[8:16]]
    expected = sum(float((part**2).sum()) for part in parts) ** 0.5
    assert float(weight_norms(anatomy.sites[0], anatomy.blocks[0])[1]) == pytest.approx(expected)


def test_wanda_by_hand() -> None:
    site = anatomy_of(tiny_model("llama")).sites[0]
    W, Z = np.random.default_rng(0).normal(size=(5, 32)), np.random.default_rng(1).normal(size=(40, 32))
    scores = wanda_scores(site, torch.from_numpy(W), torch.from_numpy(np.linalg.norm(Z, axis=0)))
    for group in (0, 1):
        columns = range(16 * group, 16 * group + 16)
        expected = sum(abs(W[i, j]) * np.linalg.norm(Z[:, j]) for i in range(5) for j in columns)
        assert float(scores[group]) == pytest.approx(expected)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_wanda_reads_the_model_pruned_so_far(family: str) -> None:
    """Block by block on a twin: statistics by hooks on the whole model, then the same cut."""
    model, twin = tiny_model(family).double(), tiny_model(family).double()
    dense = anatomy_of(twin)
    anatomy, widths = run_peer("wanda-sp", model, budget_of("params"))
    for index, block in enumerate(dense.blocks):
        seen = reads_of(twin, consumers(dense))
        for site in dense.sites_of_block(index):
            consumer = module_at(block, site.consumer)
            W = weight_of(consumer).numpy()
            scores = (np.abs(W) * np.linalg.norm(seen[site.name], axis=0)).sum(axis=0)
            scores = scores.reshape(site.units, -1).sum(axis=1)
            kept = torch.from_numpy(np.sort(np.argsort(-scores)[: widths[site.name]]))
            columns = site.columns_of(kept)
            thin = weight_of(module_at(anatomy.blocks[index], site.consumer))
            torch.testing.assert_close(thin, weight_of(consumer)[:, columns])
            for producer in site.producers:
                expected = weight_of(module_at(block, producer.path))[producer.rows_of(kept)]
                assert torch.equal(weight_of(module_at(anatomy.blocks[index], producer.path)), expected)
            dropped = torch.ones(W.shape[1], dtype=torch.bool)
            dropped[columns] = False
            weight_of(consumer)[:, dropped] = 0


# FLAP


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_flap_chooses_by_one_threshold_and_replaces_what_it_drops_by_its_mean(family: str) -> None:
    model, twin = tiny_model(family).double(), tiny_model(family).double()
    dense = anatomy_of(twin)
    budget = budget_of("params", 0.6, multiple=1)
    anatomy, widths = run_peer("flap", model, budget)
    assert len({w for n, w in widths.items() if n.endswith("feed_forward")}) > 1, "widths do not adapt"
    seen = reads_of(twin, consumers(dense))
    scores = {}
    for site in dense.sites:
        Z, W = seen[site.name], weight_of(module_at(dense.blocks[site.block], site.consumer)).numpy()
        metric = Z.var(axis=0) * (W**2).sum(axis=0)
        metric = metric**2 if site.kind == "attention" else metric
        metric = (metric - metric.mean()) / metric.std(ddof=1)
        scores[site.name] = metric.reshape(site.units, -1).mean(axis=1)
        torch.testing.assert_close(
            fluctuations(site, torch.from_numpy(W), torch.from_numpy(Z.var(axis=0))),
            torch.from_numpy(scores[site.name]),
        )
        kept = torch.from_numpy(np.sort(np.argsort(-scores[site.name])[: widths[site.name]]))
        columns = site.columns_of(kept).numpy()
        thin, own = (module_at(a.blocks[site.block], site.consumer) for a in (anatomy, dense))
        np.testing.assert_array_equal(weight_of(thin).numpy(), W[:, columns])
        lost = (Z @ W.T - Z[:, columns] @ W[:, columns].T).mean(axis=0)
        before = 0 if own.bias is None else own.bias.detach().numpy()
        if widths[site.name] < site.units:
            np.testing.assert_allclose(thin.bias.detach().numpy() - before, lost, atol=1e-12)
    # One threshold: a unit dropped ranks below all those kept, or there was no room for it.
    price = {s.name: s.parameters_per_unit for s in dense.sites}
    spent = sum(s.units * s.parameters_per_unit + s.parameters_fixed for s in anatomy_of(model).sites)
    room = budget.limit(dense.sites) - spent
    ranked = {name: np.sort(each)[::-1] for name, each in scores.items()}
    chosen = min(ranked[name][k] for name, width in widths.items() for k in range(1, width))
    for name, width in widths.items():
        assert price[name] > room
        if width < len(ranked[name]) and ranked[name][width] > chosen:
            assert price[name] > min(price.values()), "a neuron was passed over"


def test_flap_pays_for_the_biases_it_adds() -> None:
    """With costs that leave no room beside the narrowest plan, the added biases alone make it refuse."""
    anatomy = anatomy_of(tiny_model("llama"))
    narrowest = sum(s.parameters_per_unit * (1 if s.kind == "attention" else 4) for s in anatomy.sites)
    dense = budget_of("params").cost.dense(anatomy.sites)
    with pytest.raises(BudgetError, match="biases leave no room"):
        run_peer("flap", tiny_model("llama"), budget_of("params", (narrowest + 6 * 32 - 1) / dense))
    _, widths = run_peer("flap", tiny_model("llama"), budget_of("params", (narrowest + 6 * 32) / dense))
    assert set(widths.values()) == {1, 4}
