"""What every entry must pass, on tiny random models of every model type it lists."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.cost import Cost
from statprune.budget.plan import Plan, fit, full
from statprune.calibration.batches import MASKS, inputs_of
from statprune.calibration.stream import advance, before_first_block
from statprune.engine.measure import consumer_weight, factor_of, through_block
from statprune.engine.stat import stat
from statprune.engine.trace import Trace
from statprune.linalg.gram import Gram
from statprune.surgery.cut import cut
from statprune.surgery.linear import weight_of
from tests.plans import masked
from tests.tiny import MODEL_TYPES, random_cut, tiny_batch, tiny_model, uneven_cut

LENGTH = 12
CONTEXT = 10


@pytest.fixture(params=MODEL_TYPES)
def model(request: pytest.FixtureRequest) -> Iterator[PreTrainedModel]:
    with torch.no_grad():
        yield tiny_model(request.param).double()


def batches_of(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    """400 tokens, more than the 40 neurons; the second batch has padding."""
    batches = [tiny_batch(model, rows=17, length=LENGTH, seed=seed) for seed in (1, 2)]
    for name in MASKS:
        if name in batches[1] and (name != MASKS[0] or "input_ids" in batches[1]):
            batches[1][name][3:, LENGTH - 4 :] = 0
    return batches


def output(model: PreTrainedModel, seed: int = 9) -> Tensor:
    return model(**inputs_of(model, tiny_batch(model, rows=4, length=LENGTH, seed=seed))).logits


def half(anatomy: Anatomy) -> Plan:
    """Of experts the next multiple of 8."""
    return fit({site.name: 24 if site.experts else site.units // 2 for site in anatomy.sites}, anatomy.sites)


def producers_rows(
    model: PreTrainedModel, site: Site, unit: int
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    block = anatomy_of(model).blocks[site.block]
    for producer in site.producers:
        linear = module_at(block, producer.path)
        rows = producer.rows_of(torch.tensor([unit]))
        if site.experts:
            yield from ((each, None, rows) for each in linear.gate_up_proj.detach())
        else:
            yield weight_of(linear), linear.bias, rows


def test_the_entry_sees_what_was_built(model: PreTrainedModel) -> None:
    anatomy = anatomy_of(model)
    assert [len(run.blocks) for run in anatomy.runs] == [3] * (2 if model.config.is_encoder_decoder else 1)
    grouped = getattr(model.config, "num_key_value_heads", 4)
    for run in anatomy.runs:
        forward = ["shared_expert", "experts"] if run.stack.experts else ["feed_forward"]
        parts = ["attention", "cross_attention", *forward]
        whole = anatomy.kept_whole()
        wanted = [part for part in parts if f"{run.stack.name}: {part.replace('_', '-')}" not in whole]
        if run.stack.cross_attention is None:
            wanted.remove("cross_attention")
        if run.stack.experts and run.stack.shared_expert is None:
            wanted.remove("shared_expert")
        for index in range(run.start, run.end):
            sites = anatomy.sites_of_block(index)
            assert [site.part for site in sites] == wanted
            for site in sites:
                shape = (40, 1, 0) if site.kind == "feed_forward" else (grouped, 4 // grouped, 8)
                assert (site.units, site.group, site.head_dim) == shape


def test_the_stream_ends_where_the_model_does(model: PreTrainedModel) -> None:
    anatomy, batches = anatomy_of(model), batches_of(model)
    stream = before_first_block(model, anatomy, batches)
    for index, block in enumerate(anatomy.blocks):
        advance(stream, block, index)
    for batch, hidden in zip(batches, stream.hidden, strict=True):
        seen: list[Tensor] = []
        hook = anatomy.blocks[-1].register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
        model.base_model(**inputs_of(model, batch))
        hook.remove()
        torch.testing.assert_close(hidden, seen[0][0] if isinstance(seen[0], tuple) else seen[0])


def test_cutting_equals_masking(model: PreTrainedModel) -> None:
    kept = {}
    for site in anatomy_of(model).sites:
        chosen = {
            "attention": [[1], None, [0]],
            "cross_attention": [None, [0], [1]],
            "feed_forward": [None, [0, 3, 4, 17, 39], list(range(5, 30))],
            "experts": [[1, 2, 39], None, list(range(5, 30))],
            "shared_expert": [[7], list(range(9)), None],
        }[site.part][site.block % 3]
        if chosen is not None:
            kept[site.name] = chosen
    expected = output(masked(deepcopy(model), kept))
    assert (expected - output(model)).abs().max() > 1e-3, "the units dropped do not matter: nothing is tested"
    torch.testing.assert_close(output(random_cut(model, kept)), expected)


def test_full_width_is_identity(model: PreTrainedModel) -> None:
    before, anatomy = output(model), anatomy_of(model)
    stream = before_first_block(model, anatomy, batches_of(model))
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        seen = through_block(stream, block, index, sites, Gram)
        for site in sites:
            part = factor_of(site, block, seen[site.name]).interpolation(site.units)
            cut(block, site, part.kept, consumer_weight(site, block) @ part.T.mT)
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
    assert all(site.units in (24, 20, 2, 1) for site in anatomy_of(model).sites)
    torch.testing.assert_close(output(model), before, atol=1e-6, rtol=1e-6)


def test_correction_helps(model: PreTrainedModel) -> None:
    """At equal units kept, the consumer's output is nearer to the dense one with the correction."""
    anatomy, batches = anatomy_of(model), batches_of(model)
    stream = before_first_block(model, anatomy, batches)
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        rows: dict[str, list[Tensor]] = {site.name: [] for site in sites}
        trial = deepcopy(stream)
        advance(trial, block, index, {site.consumer: rows[site.name].append for site in sites})
        seen = through_block(stream, block, index, sites, Gram)
        for site in sites:
            if site.experts:
                continue  # tests/contracts/test_experts.py
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
    plan = fit(
        {site.name: 8 if site.experts else 1 + site.units // 8 for site in anatomy.sites_of_block(1)},
        anatomy.sites,
    )
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
    batch = inputs_of(model, tiny_batch(model, rows=3, length=CONTEXT))  # as many tokens as an image has
    sites = anatomy_of(model).sites
    kept = Plan({site.name: site.units for site in anatomy_of(narrow).sites})
    counted = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in narrow.parameters())
    params, macs = Cost("params", CONTEXT), Cost("macs", CONTEXT)
    assert counted == params.dense(sites) - params.of_plan(kept, sites) > 0

    def flops(each: PreTrainedModel) -> int:
        with FlopCounterMode(display=False) as counter:
            each.base_model(**batch)
        return counter.get_total_flops()

    assert full(sites).is_uniform()
    if model.config.model_type == "deberta-v2":
        return  # torch's counter stumbles over its scripted functions
    found = (flops(model) - flops(narrow)) / 2 / (3 * CONTEXT)
    assert found == macs.dense(sites) - macs.of_plan(kept, sites)
