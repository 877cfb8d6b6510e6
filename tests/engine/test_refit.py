"""The compensated refit against an independent computation: numpy on whole activations, hooks, no stream."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.parts import BLOCK
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.plan import fit
from statprune.engine.refit import refit
from statprune.engine.trace import Trace
from statprune.linalg.elimination import eliminate
from statprune.surgery.linear import weight_of
from tests.tiny import tiny_batch, tiny_model

FAMILIES = ("llama", "gpt2", "bert")
DAMPINGS, NEARLY, LOCAL = (1e-1, 1e-2, 1e-3), 0.005, 1e-4


def batches_of(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    found = [tiny_batch(model, rows=18, length=12, seed=seed) for seed in (1, 2)]
    found[0]["attention_mask"][1:5, 9:] = 0
    return found


def held_rows(batches: list[dict[str, Tensor]]) -> np.ndarray:
    """Of the real tokens of all batches: whether their sample is every fourth one."""
    real = torch.cat([batch["attention_mask"].bool() for batch in batches])
    every_fourth = (torch.arange(len(real)) % 4 == 3)[:, None].expand_as(real)
    return every_fourth[real].numpy()


@torch.no_grad()
def seen_by(model: PreTrainedModel, batches: list[dict[str, Tensor]], block: int) -> dict[str, np.ndarray]:
    """What the modules of one block read ("in PATH") and return ("out PATH"), of the whole model at once."""
    found: dict[str, list[Tensor]] = {}
    sites = anatomy_of(model).sites_of_block(block)
    root = anatomy_of(model).blocks[block]
    for batch in batches:
        real = batch["attention_mask"].bool()

        def note(name: str, value: Tensor, real: Tensor = real) -> None:
            found.setdefault(name, []).append(value.reshape(*real.shape, -1)[real])

        hooks = [
            root.register_forward_pre_hook(
                lambda _, a, k, note=note: note("in ", a[0] if a else k["hidden_states"]), with_kwargs=True
            )
        ]
        for site in sites:
            for path in {site.consumer, site.producers[0].path, *site.residual} - {BLOCK}:
                hooks.append(
                    module_at(root, path).register_forward_pre_hook(
                        lambda _, a, note=note, path=path: note(f"in {path}", a[0])
                    )
                )
            hooks.append(
                module_at(root, site.consumer).register_forward_hook(
                    lambda _, __, out, note=note, path=site.consumer: note(f"out {path}", out)
                )
            )
        model(**batch)
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def ridge(G: np.ndarray, C: np.ndarray, damping: float) -> np.ndarray:
    return np.linalg.solve(G + damping * G.diagonal().mean() * np.eye(len(G)), C)


def made_good(Z: np.ndarray, D: np.ndarray, held: np.ndarray) -> float | None:
    """The damping with which D is fitted, or None: by hand, on the rows held out."""
    errors = {None: 1.0}
    whole = np.square(D[held]).sum()
    if whole <= 1e-20:
        return None
    for damping in DAMPINGS:
        B = ridge(Z[~held].T @ Z[~held], Z[~held].T @ D[~held], damping)
        errors[damping] = np.square(D[held] - Z[held] @ B).sum() / whole
    least = min(errors.values())
    return next(damping for damping, error in errors.items() if error <= least + NEARLY * (1 - least))


def by_hand(
    dense: PreTrainedModel, batches: list[dict[str, Tensor]], widths: dict[str, int]
) -> PreTrainedModel:
    """A model at full shapes, whose dropped units' columns are zero."""
    thin, held = deepcopy(dense), held_rows(batches)
    for block in range(len(anatomy_of(dense).blocks)):
        reference = seen_by(dense, batches, block)
        root = anatomy_of(thin).blocks[block]
        for site in anatomy_of(thin).sites_of_block(block):
            _adapt(thin, root, site, reference, seen_by(thin, batches, block), held)
            _narrow(root, site, widths[site.name], reference, seen_by(thin, batches, block), held)
    return thin


def _adapt(thin, root, site: Site, reference, seen, held) -> None:
    path = site.producers[0].path
    x, lost = seen[f"in {path}"], reference[f"in {path}"] - seen[f"in {path}"]
    linears = [module_at(root, producer.path) for producer in site.producers]
    constant = all(linear.bias is not None for linear in linears)
    mean_x, mean_lost = (each.mean(axis=0) * constant for each in (x, lost))
    damping = made_good(x - mean_x, lost - mean_lost, held)
    if damping is None:
        return
    x_, lost_ = x - mean_x, lost - mean_lost
    M = ridge(x_.T @ x_, x_.T @ lost_, damping)
    for linear in linears:
        W = weight_of(linear)
        if constant:
            linear.bias += W @ torch.from_numpy(mean_lost - mean_x @ M)
        W += W @ torch.from_numpy(M.T)


def _narrow(root, site: Site, width: int, reference, seen, held) -> None:
    consumer = module_at(root, site.consumer)
    (path,) = site.residual
    residual = f"in {path}"
    Z = seen[f"in {site.consumer}"]
    hidden = reference[f"out {site.consumer}"] + reference[residual]
    w = 1 / hidden.var(axis=1)
    Y = hidden - seen[residual]
    constant = consumer.bias is not None
    if constant:
        Y = Y - consumer.bias.detach().numpy()
    mean_z, mean_y = (w @ each / w.sum() * constant for each in (Z, Y))
    z, y = (np.sqrt(w)[:, None] * each for each in (Z - mean_z, Y - mean_y))
    W = weight_of(consumer).numpy().copy()
    D = y - z @ W.T
    damping = made_good(z, D, held)
    G = z.T @ z
    lost = (
        np.zeros_like(W.T)
        if damping is None
        else ridge(z[~held].T @ z[~held], z[~held].T @ D[~held], damping)
    )
    order = eliminate(
        torch.from_numpy(G),
        torch.from_numpy(W.T + lost),
        unit=site.columns,
        damping=LOCAL if damping is None else damping,
    ).order
    kept = order[:width].sort().values if width < site.units else torch.arange(site.units)
    columns = site.columns_of(kept).numpy()
    part = z[:, columns]
    B = W.T if width == site.units else ridge(part.T @ part, part.T @ (z @ W.T), LOCAL)
    if damping is not None:
        B = B + ridge(part.T @ part, part.T @ D, damping)
    weight_of(consumer).zero_()
    weight_of(consumer)[:, columns] = torch.from_numpy(B.T)
    if constant:
        consumer.bias += torch.from_numpy(mean_y - mean_z[columns] @ B)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_method_by_hand(family: str) -> None:
    model = tiny_model(family).double()
    batches, anatomy = batches_of(model), anatomy_of(model)
    widths = {
        site.name: site.units if site.name == "blocks.0.attention" else max(1, site.units * 3 // 4)
        for site in anatomy.sites
    }
    expected = by_hand(deepcopy(model), batches, widths)
    trace = Trace()
    refit(model, anatomy, batches, fit(widths, anatomy.sites), trace)
    found, wanted = (each(**batches[1]).logits for each in (model, expected))
    # Products are summed from float32.
    torch.testing.assert_close(found, wanted, atol=2e-3 * float(wanted.abs().max()), rtol=0)
    assert {site.site: len(site.kept) for site in trace.sites} == widths
    assert trace.divergence is not None
    assert trace.divergence > 0


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_full_width_changes_nothing(family: str) -> None:
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    anatomy = anatomy_of(model)
    refit(
        model,
        anatomy,
        batches_of(model),
        fit({"blocks.0.attention": anatomy.sites[0].units}, anatomy.sites),
        Trace(),
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_what_earlier_cuts_lost_is_made_good(family: str) -> None:
    """The same plan by method stat, and by the refit: the outputs come nearer to the dense ones."""
    dense = tiny_model(family)
    batches = [tiny_batch(dense, rows=40, length=16, seed=seed) for seed in range(3)]
    test = tiny_batch(dense, rows=20, length=16, seed=99)
    plan = {"blocks.0.feed_forward": 20, "blocks.1.feed_forward": 24}
    error = {}
    for method in ("stat", "refit"):
        model = statprune.compress(tiny_model(family), data=batches, plan=plan, method=method).model
        error[method] = float((model(**test).logits - dense(**test).logits).norm())
    assert error["refit"] < 0.98 * error["stat"]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_stands_in_the_padding_changes_nothing(family: str) -> None:
    states = []
    for filling in (5, 40):
        model = tiny_model(family)
        batch = tiny_batch(model, rows=24, length=16, seed=3)
        for row in range(24):
            batch["attention_mask"][row, 16 - row % 7 :] = 0
        batch["input_ids"][batch["attention_mask"] == 0] = filling
        states.append(statprune.compress(model, data=[batch], keep=0.6).model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], atol=1e-4, rtol=1e-4)
