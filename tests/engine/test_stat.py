"""STAT against an independent computation: scipy on whole activation matrices, hooks instead of a stream."""

from copy import deepcopy

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.plan import fit
from statprune.engine.backends import maker
from statprune.engine.stat import measure, stat
from statprune.engine.trace import Trace
from statprune.linalg.gram import Gram
from statprune.surgery.linear import weight_of
from tests.tiny import tiny_batch, tiny_model

FAMILIES = ("llama", "gpt2", "bert")


def batches_of(model: PreTrainedModel, rows: int = 20) -> list[dict[str, Tensor]]:
    batches = [tiny_batch(model, rows=rows, length=12, seed=seed) for seed in (1, 2)]
    batches[0]["attention_mask"][1:, 9:] = 0
    return batches


@torch.no_grad()
def activations(model: PreTrainedModel, batches: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """What every consumer reads, (tokens, columns), of the whole model at once, padding removed."""
    anatomy = anatomy_of(model)
    rows: dict[str, list[Tensor]] = {site.name: [] for site in anatomy.sites}
    for batch in batches:
        real = batch["attention_mask"].bool()
        hooks = [
            module_at(anatomy.blocks[site.block], site.consumer).register_forward_pre_hook(
                lambda _, inputs, name=site.name, real=real: rows[name].append(
                    inputs[0].reshape(*real.shape, -1)[real]
                )
            )
            for site in anatomy.sites
        ]
        model(**batch)
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts).double().numpy() for name, parts in rows.items()}


def neurons_by_hand(Z: np.ndarray, W: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Kept neurons, sorted, and the corrected weight: algorithm notes, section 2, with a plain solve."""
    norms = np.linalg.norm(W, axis=0)
    _, pivots = scipy.linalg.qr(Z * norms, mode="r", pivoting=True)
    kept = np.sort(pivots[:count])
    T = np.linalg.lstsq(Z[:, kept], Z, rcond=None)[0]
    return kept, W @ T.T


def heads_by_hand(Z: np.ndarray, W: np.ndarray, site: Site, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Kept heads (groups), sorted, and the corrected weight: section 3."""
    flat = np.stack(
        [Z[:, u * site.columns : (u + 1) * site.columns].ravel() for u in range(site.units)], axis=1
    )
    _, pivots = scipy.linalg.qr(flat, mode="r", pivoting=True)
    kept = np.sort(pivots[:count])
    columns = site.columns_of(torch.tensor(kept)).numpy()
    T = np.linalg.lstsq(Z[:, columns], Z, rcond=None)[0]
    return kept, W @ T.T


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_method_by_hand(family: str) -> None:
    """Neurons from the dense model, all blocks at once; then heads from the neuron-pruned model."""
    model = tiny_model(family).double()
    by_hand, batches = deepcopy(model), batches_of(model)
    anatomy = anatomy_of(model)
    heads = max(1, anatomy.sites[0].units - 1)
    widths = {s.name: heads if s.kind == "attention" else 24 - 3 * s.block for s in anatomy.sites}
    stat(model, anatomy, batches, fit(widths, anatomy.sites), Gram, Trace())

    twin = anatomy_of(by_hand)
    for kind in ("feed_forward", "attention"):
        seen = activations(by_hand, batches)
        for site in (each for each in twin.sites if each.kind == kind):
            block = twin.blocks[site.block]
            consumer = module_at(block, site.consumer)
            W = weight_of(consumer).numpy()
            if kind == "feed_forward":
                kept, weight = neurons_by_hand(seen[site.name], W, widths[site.name])
            else:
                kept, weight = heads_by_hand(seen[site.name], W, site, widths[site.name])
            found = anatomy.blocks[site.block]
            torch.testing.assert_close(
                weight_of(module_at(found, site.consumer)), torch.from_numpy(weight), atol=1e-7, rtol=1e-6
            )
            for producer in site.producers:
                rows = producer.rows_of(torch.from_numpy(kept))
                expected = weight_of(module_at(block, producer.path))[rows]
                assert torch.equal(weight_of(module_at(found, producer.path)), expected)
            # The hand-made model goes on with its full shapes: dropped columns are zero.
            masked = torch.zeros_like(weight_of(consumer))
            masked[:, site.columns_of(torch.from_numpy(kept))] = torch.from_numpy(weight)
            if kind == "feed_forward":
                weight_of(consumer).copy_(masked)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_decided_from_curves_cuts_like_the_same_plan_given(family: str) -> None:
    one, other = tiny_model(family), tiny_model(family)
    anatomy = anatomy_of(one)
    plan = fit({"blocks.0.feed_forward": 16, "blocks.2.attention": 1}, anatomy.sites)
    stat(one, anatomy, batches_of(one), plan, Gram, Trace())
    stat(other, anatomy_of(other), batches_of(other), lambda curves: plan, Gram, Trace())
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_curves_are_the_errors_of_cutting() -> None:
    """Every point of a curve, recomputed by least squares on the activations themselves."""
    model = tiny_model("qwen2").double()
    anatomy, batches = anatomy_of(model), batches_of(model)
    curves, factors = measure(model, anatomy, batches, Gram)
    seen = activations(model, batches)
    assert set(factors) == {site.name for site in anatomy.sites if site.kind == "feed_forward"}
    for site in anatomy.sites:
        Z = seen[site.name]
        W = weight_of(module_at(anatomy.blocks[site.block], site.consumer)).numpy()
        for count in range(1, site.units, max(1, site.units // 7)):
            by_hand = neurons_by_hand if site.kind == "feed_forward" else None
            kept, weight = by_hand(Z, W, count) if by_hand else heads_by_hand(Z, W, site, count)
            columns = site.columns_of(torch.from_numpy(kept)).numpy()
            error = np.linalg.norm(Z @ W.T - Z[:, columns] @ weight.T)
            assert float(curves[site.name].output[count]) == pytest.approx(error, rel=1e-6)
        assert float(curves[site.name].output[site.units]) == 0


def errors_after(
    model: PreTrainedModel, backend: str, samples: int = 2
) -> tuple[PreTrainedModel, list[float]]:
    anatomy = anatomy_of(model)
    plan = fit({s.name: 1 if s.kind == "attention" else 20 for s in anatomy.sites}, anatomy.sites)
    make = maker(
        backend,
        samples=samples,  # 200 rows of a sketch for 423 tokens: it does compress
        tokens=423,
        generator=torch.Generator().manual_seed(3),
        device=torch.device("cpu"),
    )
    dense = activations(model, batches_of(model))
    weights = {
        s.name: weight_of(module_at(anatomy.blocks[s.block], s.consumer)).clone() for s in anatomy.sites
    }
    trace = Trace()
    stat(model, anatomy, batches_of(model), plan, make, trace)
    errors = []
    for site in anatomy.sites:
        if site.kind == "feed_forward":
            kept = next(each.kept for each in trace.sites if each.site == site.name)
            Z, W = dense[site.name], weights[site.name].double().numpy()
            thin = weight_of(module_at(anatomy.blocks[site.block], site.consumer)).double().numpy()
            errors.append(float(np.linalg.norm(Z @ W.T - Z[:, list(kept)] @ thin.T)))
    return model, errors


def test_backends_agree_up_to_their_stated_error() -> None:
    exact, best = errors_after(tiny_model("llama"), "gram")
    tall, _ = errors_after(tiny_model("llama"), "qr")
    for name, value in exact.state_dict().items():
        torch.testing.assert_close(tall.state_dict()[name], value, atol=1e-6, rtol=1e-5)
    for backend in ("gaussian", "countsketch"):
        _, errors = errors_after(tiny_model("llama"), backend)
        assert errors != best, "a sketch that equals the exact answer did not sketch"
        for error, least in zip(errors, best, strict=True):
            assert error < 1.3 * least


def test_a_sketch_repeats_with_its_seed() -> None:
    one, _ = errors_after(tiny_model("bert"), "countsketch")
    two, _ = errors_after(tiny_model("bert"), "countsketch")
    for name, value in one.state_dict().items():
        assert torch.equal(two.state_dict()[name], value)


def test_fewer_tokens_than_columns_stays_finite() -> None:
    model = tiny_model("llama")
    batch = tiny_batch(model, rows=1, length=6)
    anatomy = anatomy_of(model)
    trace = Trace()
    plan = fit({s.name: 1 if s.kind == "attention" else 16 for s in anatomy.sites}, anatomy.sites)
    stat(model, anatomy, [batch], plan, Gram, trace)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    ranks = {each.site: each.rank for each in trace.sites}
    assert all(rank <= 6 for rank in ranks.values())
