"""What every entry must pass, on tiny random models of every model type it lists."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.anatomy.sites import Site, module_at
from statprune.budget.cost import Cost
from statprune.budget.plan import Plan, fit, full
from statprune.calibration.stream import advance, before_first_block
from statprune.engine.measure import consumer_weight, factor_of, through_block
from statprune.engine.stat import stat
from statprune.engine.trace import Trace
from statprune.linalg.gram import Gram
from statprune.surgery.cut import cut
from statprune.surgery.linear import set_weight, weight_of
from tests.tiny import MODEL_TYPES, random_cut, tiny_batch, tiny_model, uneven_cut

LENGTH = 12


@pytest.fixture(params=MODEL_TYPES)
def model(request: pytest.FixtureRequest) -> Iterator[PreTrainedModel]:
    with torch.no_grad():
        yield tiny_model(request.param).double()


def batches_of(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    """400 tokens, more than the 40 neurons; the second batch has padding."""
    batches = [tiny_batch(model, rows=17, length=LENGTH, seed=seed) for seed in (1, 2)]
    batches[1]["attention_mask"][3:, LENGTH - 4 :] = 0
    return batches


def output(model: PreTrainedModel, seed: int = 9) -> Tensor:
    return model(**tiny_batch(model, rows=4, length=LENGTH, seed=seed)).logits


def half(anatomy: Anatomy) -> Plan:
    return fit({site.name: site.units // 2 for site in anatomy.sites}, anatomy.sites)


def producers_rows(
    model: PreTrainedModel, site: Site, unit: int
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    block = anatomy_of(model).blocks[site.block]
    for producer in site.producers:
        linear = module_at(block, producer.path)
        yield weight_of(linear), linear.bias, producer.rows_of(torch.tensor([unit]))


def test_the_entry_sees_what_was_built(model: PreTrainedModel) -> None:
    anatomy = anatomy_of(model)
    assert len(anatomy.blocks) == 3
    grouped = getattr(model.config, "num_key_value_heads", 4)
    for index in range(3):
        attention, forward = anatomy.sites_of_block(index)
        assert (attention.units, attention.group, attention.head_dim) == (grouped, 4 // grouped, 8)
        assert forward.units == 40


def test_the_stream_ends_where_the_model_does(model: PreTrainedModel) -> None:
    anatomy, batches = anatomy_of(model), batches_of(model)
    stream = before_first_block(model, anatomy.blocks, batches)
    for index, block in enumerate(anatomy.blocks):
        advance(stream, block, index)
    for batch, hidden in zip(batches, stream.hidden, strict=True):
        seen: list[Tensor] = []
        hook = anatomy.blocks[-1].register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
        model.base_model(**batch)
        hook.remove()
        torch.testing.assert_close(hidden, seen[0])


def test_cutting_equals_masking(model: PreTrainedModel) -> None:
    masked = deepcopy(model)
    anatomy = anatomy_of(masked)
    kept = {
        "blocks.0.attention": [1],
        "blocks.1.feed_forward": [0, 3, 4, 17, 39],
        "blocks.2.attention": [0],
        "blocks.2.feed_forward": list(range(5, 30)),
    }
    for site in anatomy.sites:
        if site.name in kept:
            consumer = module_at(anatomy.blocks[site.block], site.consumer)
            mask = torch.zeros(site.units * site.columns, dtype=torch.float64)
            mask[site.columns_of(torch.tensor(kept[site.name]))] = 1
            set_weight(consumer, weight_of(consumer) * mask)
    expected = output(masked)
    assert (expected - output(model)).abs().max() > 1e-3, "the units dropped do not matter: nothing is tested"
    torch.testing.assert_close(output(random_cut(model, kept)), expected)


def test_full_width_is_identity(model: PreTrainedModel) -> None:
    before, anatomy = output(model), anatomy_of(model)
    stream = before_first_block(model, anatomy.blocks, batches_of(model))
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        seen = through_block(stream, block, index, sites, Gram)
        for site in sites:
            part = factor_of(site, block, seen[site.name]).interpolation(site.units)
            cut(anatomy.entry, block, site, part.kept, consumer_weight(site, block) @ part.T.T)
    torch.testing.assert_close(output(model), before)


def test_redundancy_is_free(model: PreTrainedModel) -> None:
    """Half the units of every site are copies of the others: half the width gives the same output."""
    anatomy = anatomy_of(model)
    for site in anatomy.sites:
        for unit in range(site.units // 2, site.units):
            twin = unit - site.units // 2
            copies = zip(producers_rows(model, site, unit), producers_rows(model, site, twin), strict=True)
            for (weight, bias, rows), (_, _, others) in copies:
                weight[rows] = weight[others]
                if bias is not None:
                    bias[rows] = bias[others]
    before = output(model)
    stat(model, anatomy, batches_of(model), half(anatomy), Gram, Trace())
    assert all(site.units in (20, 2, 1) for site in anatomy_of(model).sites)
    torch.testing.assert_close(output(model), before, atol=1e-6, rtol=1e-6)


def test_correction_helps(model: PreTrainedModel) -> None:
    """At equal units kept, the consumer's output is nearer to the dense one with the correction."""
    anatomy, batches = anatomy_of(model), batches_of(model)
    stream = before_first_block(model, anatomy.blocks, batches)
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        rows: dict[str, list[Tensor]] = {site.name: [] for site in sites}
        trial = deepcopy(stream)
        advance(trial, block, index, {site.consumer: rows[site.name].append for site in sites})
        seen = through_block(stream, block, index, sites, Gram)
        for site in sites:
            Z, W = torch.cat(rows[site.name]), consumer_weight(site, block)
            factor = factor_of(site, block, seen[site.name])
            part = factor.interpolation(site.units // 2)
            Z_kept = Z[:, part.kept_columns]
            dense = Z @ W.T
            corrected = (dense - Z_kept @ (W @ part.T.T).T).norm()
            plain = (dense - Z_kept @ W[:, part.kept_columns].T).norm()
            assert corrected < 0.95 * plain
            torch.testing.assert_close(corrected, factor.errors(W)[site.units // 2])


def test_neighbours_are_untouched(model: PreTrainedModel) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    anatomy = anatomy_of(model)
    plan = fit({"blocks.1.attention": 1, "blocks.1.feed_forward": 8}, anatomy.sites)
    stat(model, anatomy, batches_of(model), plan, Gram, Trace())
    assert output(model).isfinite().all()
    inside = {name for name, _ in anatomy.blocks[1].named_parameters()}
    prefix = next(name for name, module in model.named_modules() if module is anatomy.blocks[1])
    for name, value in model.state_dict().items():
        if name.removeprefix(f"{prefix}.") not in inside or not name.startswith(f"{prefix}."):
            assert torch.equal(value, before[name]), name
        elif name.endswith("bias") and value.shape == before[name].shape:
            assert torch.equal(value, before[name]), f"{name}: a consumer's bias and norms stay"


def test_counted_parameters_and_flops_equal_the_cost_model(model: PreTrainedModel) -> None:
    """Parameters by counting them, MACs by torch's own counter on the operations that ran."""
    model = model.float()
    model.set_attn_implementation("eager")  # the counter does not see into the fused kernel
    narrow = uneven_cut(deepcopy(model))
    batch = tiny_batch(model, rows=3, length=LENGTH)
    sites = anatomy_of(model).sites
    kept = Plan({site.name: site.units for site in anatomy_of(narrow).sites})
    counted = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in narrow.parameters())
    params, macs = Cost("params", LENGTH), Cost("macs", LENGTH)
    assert counted == params.dense(sites) - params.of_plan(kept, sites) > 0

    def flops(each: PreTrainedModel) -> int:
        with FlopCounterMode(display=False) as counter:
            each.base_model(**batch)
        return counter.get_total_flops()

    tokens = batch["input_ids"].numel()
    assert (flops(model) - flops(narrow)) / 2 / tokens == macs.dense(sites) - macs.of_plan(kept, sites)
    assert full(sites).is_uniform()
