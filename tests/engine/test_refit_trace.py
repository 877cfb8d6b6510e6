"""The refit to the last digit, what its trace says, and what it leaves alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.plan import Plan, fit, full
from statprune.engine import refit as engine
from statprune.engine.divergence import CHOICES
from statprune.engine.refit import Passage, adapt, narrow, refit
from statprune.engine.trace import Trace
from statprune.linalg.gram import CrossGram, Gram
from statprune.surgery.linear import set_weight, weight_of
from tests.engine.test_refit import FAMILIES, batches_of, by_hand, seen_by
from tests.tiny import tiny_batch, tiny_model


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are formed as they are summed, in float64."""
    for kind in (Gram, CrossGram):
        made: Callable[..., None] = kind.__init__

        def exactly(self: Any, *sizes: int, made: Any = made, product_dtype: Any = None, **more: Any) -> None:
            made(self, *sizes, **more)

        monkeypatch.setattr(kind, "__init__", exactly)


def three_quarters(model: PreTrainedModel) -> Plan:
    """Of every site but the first, which keeps all."""
    sites = anatomy_of(model).sites
    return fit({site.name: max(1, site.units * 3 // 4) for site in sites[1:]}, sites)


def refitted(model: PreTrainedModel, plan: Plan, **more: Any) -> Trace:
    trace = Trace()
    refit(model, anatomy_of(model), batches_of(model), plan, trace, **more)
    return trace


@torch.no_grad()
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_method_to_the_last_digit(family: str) -> None:
    """Against numpy, with products in float64: only the order of sums differs."""
    model = tiny_model(family).double()
    expected = by_hand(model, batches_of(model), dict(three_quarters(model).widths))
    refitted(model, three_quarters(model))
    for batch in (*batches_of(model), tiny_batch(model, rows=6, seed=77)):
        real = batch["attention_mask"].bool()
        found, wanted = (each(**batch).logits[real] for each in (model, expected))
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_trace_is_what_the_finished_model_shows(family: str) -> None:
    """Its errors and divergence, recomputed from the dense and the finished model alone."""
    dense, model = tiny_model(family).double(), tiny_model(family).double()
    plan, batches = three_quarters(model), batches_of(model)
    trace = refitted(model, plan)
    sites = {site.name: site for site in anatomy_of(dense).sites}
    assert [each.site for each in trace.sites] == list(sites)
    for each in trace.sites:
        site = sites[each.site]
        assert (each.units, len(each.kept)) == (site.units, plan[site])
        assert list(each.kept) == sorted(set(each.kept))
        assert each.rank == plan[site] * site.columns
        assert each.condition >= 1
        before, after = (seen_by(one, batches, site.block) for one in (dense, model))
        output, residual = f"out {site.consumer}", f"in {site.residual[0]}"
        hidden = before[output] + before[residual]
        wanted, w = hidden - after[residual], 1 / hidden.var(axis=1)
        biased = module_at(anatomy_of(dense).blocks[site.block], site.consumer).bias is not None
        about = wanted - w @ wanted / w.sum() * biased
        left, whole = (np.linalg.norm(np.sqrt(w)[:, None] * each) for each in (wanted - after[output], about))
        error = left / whole
        assert each.relative_error == pytest.approx(error, rel=1e-6, abs=1e-7)
        assert error > 0.01 or each is trace.sites[0]
    assert trace.sites[0].relative_error == pytest.approx(0, abs=1e-6)

    samples = [
        {name: value[row : row + 1] for name, value in batch.items()}
        for batch in batches
        for row in range(18)
    ]
    p, q = (
        torch.cat(
            [
                torch.softmax(each(**sample).logits[sample["attention_mask"].bool()], dim=-1)
                for sample in samples[3::4]
            ]
        ).numpy()
        for each in (dense, model)
    )
    # Outputs are compared in float32.
    assert trace.divergence == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4, abs=2e-8)
    assert trace.damage == CHOICES


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_what_lies_in_front_of_the_first_cut_stays(family: str) -> None:
    """Bit for bit in the blocks before; to rounding within its own block; producers are read off rows."""
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    anatomy = anatomy_of(model)
    attention, forward = anatomy.sites_of_block(1)
    trace = refitted(model, fit({forward.name: 25}, anatomy.sites))
    assert next(each.site for each in trace.sites) == attention.name
    assert all("blocks.0" not in each.site for each in trace.sites)
    prefix = {name for name, module in model.named_modules() if module in list(anatomy.blocks)[1:]}
    for name, value in model.state_dict().items():
        if not any(name.startswith(f"{each}.") for each in prefix):
            assert torch.equal(value, before[name]), name
    root = next(name for name, module in model.named_modules() if module is anatomy.blocks[1])
    for path in {*(producer.path for producer in attention.producers), attention.consumer}:
        for name in (f"{root}.{path}.weight", f"{root}.{path}.bias"):
            if name in before:
                torch.testing.assert_close(model.state_dict()[name], before[name], atol=1e-6, rtol=1e-6)
    kept = next(each.kept for each in trace.sites if each.site == forward.name)
    for producer in forward.producers:
        dense = before[f"{root}.{producer.path}.weight"]
        rows = dense if family != "gpt2" else dense.T
        found = weight_of(module_at(anatomy.blocks[1], producer.path))
        torch.testing.assert_close(found, rows[list(kept)], atol=1e-5, rtol=1e-5)


def test_full_width_is_no_damage() -> None:
    model, told = tiny_model("llama"), []
    trace = refitted(model, full(anatomy_of(model).sites), progress=lambda *now: told.append(now[:3]))
    assert (trace.divergence, trace.sites) == (pytest.approx(0, abs=1e-9), [])
    assert told == [*(("refit", done, 3) for done in (1, 2, 3)), ("compare", 1, 1)]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shifted_consumer_is_made_good_behind_it(family: str) -> None:
    """Every unit stays, but block 0 is spoilt: with the two steps the rest follows, without it does not."""

    def spoil(at: Passage, site: Site, _: int, __: Trace) -> None:
        consumer = module_at(at.block, site.consumer)
        if site.name == "blocks.0.feed_forward":
            set_weight(consumer, 0.4 * weight_of(consumer))

    divergence = {}
    for name, steps in {"none": (spoil,), "both": (spoil, adapt, _narrow_behind)}.items():
        model = tiny_model(family)
        sites = anatomy_of(model).sites
        nearly = fit({"blocks.0.attention": 1, "blocks.2.feed_forward": 39}, sites)
        divergence[name] = refitted(model, nearly, steps=steps).divergence
    assert divergence["both"] < 0.8 * divergence["none"]


def _narrow_behind(at: Passage, site: Site, count: int, trace: Trace) -> None:
    if site.block > 0:
        narrow(at, site, count, trace)


@torch.no_grad()
def test_producers_are_adapted_on_the_first_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples beyond them may be any; with more tokens asked they matter."""

    def spoil(at: Passage, site: Site, _: int, __: Trace) -> None:
        if site.name == "blocks.0.feed_forward":
            consumer = module_at(at.block, site.consumer)
            set_weight(consumer, 0.6 * weight_of(consumer))

    def producers(last: int, most: int) -> Tensor:
        monkeypatch.setattr(engine, "ADAPTED", 0)
        monkeypatch.setattr(engine, "FEWEST_ADAPTED", most)
        model = tiny_model("llama")
        batches = [tiny_batch(model, rows=20, length=12, seed=seed) for seed in (1, 2, last)]
        anatomy = anatomy_of(model)
        plan = fit({"blocks.0.attention": 1}, anatomy.sites)
        refit(model, anatomy, batches, plan, Trace(), steps=(spoil, adapt))
        return model.model.layers[1].self_attn.q_proj.weight.clone()

    dense = tiny_model("llama").model.layers[1].self_attn.q_proj.weight
    few, still_few = (producers(last, 30 * 12) for last in (3, 4))
    assert (few - dense).abs().max() > 1e-3, "nothing was adapted: nothing is tested"
    assert torch.equal(few, still_few)
    assert not torch.equal(*(producers(last, 60 * 12) for last in (3, 4)))
    assert not torch.equal(few, producers(3, 10 * 12))


@torch.no_grad()
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_as_good_as_not_there(family: str) -> None:
    """The same samples, once in batches of one length each, once padded into one batch."""
    model = tiny_model(family).double()
    lengths = [5 + row % 6 for row in range(48)]
    rows = [tiny_batch(model, rows=1, length=length, seed=n) for n, length in enumerate(lengths)]
    padded = {
        name: torch.cat([torch.nn.functional.pad(row[name], (0, 12 - row[name].shape[1])) for row in rows])
        for name in ("input_ids", "attention_mask")
    }
    made = [
        statprune.compress(
            tiny_model(family).double(),
            data=data,
            plan={"blocks.0.feed_forward": 24, "blocks.1.attention": 1},
        )
        for data in (rows, [padded])
    ]
    assert [site.kept for site in made[0].trace.sites] == [site.kept for site in made[1].trace.sites]
    for name, value in made[0].model.state_dict().items():
        torch.testing.assert_close(value, made[1].model.state_dict()[name], atol=1e-7, rtol=1e-7)
    assert made[0].trace.divergence == pytest.approx(made[1].trace.divergence, rel=1e-4, abs=2e-8)
