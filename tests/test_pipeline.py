"""`compress` from end to end: budget, plan and widths; what it leaves in memory, on disk and on record."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from tests.saved import letter_tokenizer, save_tiny, sentences
from tests.tiny import tiny_batch, tiny_model

FAMILIES = ("llama", "gpt2", "bert")
DECODERS = ("llama", "gpt2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        save_tiny(root / family, family)
    return {family: root / family for family in FAMILIES}


def batches(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    return [tiny_batch(model, rows=8, length=24, seed=seed) for seed in range(3)]


def compressed(model: PreTrainedModel, **options: object) -> statprune.Result:
    return statprune.compress(model, data=batches(model), **{"keep": 0.6, **options})


def units(model: PreTrainedModel, kind: str) -> list[int]:
    return [site.units for site in anatomy_of(model).sites if site.kind == kind]


def in_projections(model: PreTrainedModel) -> int:
    """Parameters of the linear layers inside the blocks, counted one by one."""
    layers = {
        id(module): module
        for block in anatomy_of(model).blocks
        for module in block.modules()
        if type(module).__name__ in ("Linear", "Conv1D", "NarrowValues", "NarrowReader")
    }
    return sum(parameter.numel() for layer in layers.values() for parameter in layer.parameters())


@torch.no_grad()
def logits(model: PreTrainedModel, seed: int = 9) -> Tensor:
    return model(**tiny_batch(model, seed=seed)).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize("widths", ["per-layer", "uniform"])
def test_the_budget_is_never_exceeded_and_recorded(family: str, of: str, widths: str) -> None:
    for keep in (0.9, 0.51, 0.42):
        model = tiny_model(family)
        dense = in_projections(model)
        result = compressed(model, keep=keep, of=of, widths=widths)
        cost = result.record["cost"]
        assert cost[of]["share"] <= keep
        # A step of 8 neurons in every block costs 8/40 of the feed-forward layers: less than 0.15 of all.
        assert cost[of]["share"] > keep - 0.15, "as close below as units allow"
        assert cost["params"]["dense"] == dense
        assert cost["params"]["kept"] == in_projections(result.model) < dense
        assert (result.record["recipe"]["keep"], result.record["recipe"]["of"]) == (keep, of)
        assert all(count % 8 == 0 for count in units(result.model, "feed_forward"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("widths", ["per-layer", "uniform"])
def test_the_model_given_is_the_model_returned(family: str, widths: str) -> None:
    model = tiny_model(family)
    before = logits(model)
    result = compressed(model, widths=widths)
    assert result.model is model
    assert result.folder is None
    found = {site.name: site.units for site in anatomy_of(model).sites}
    assert found == result.plan.widths == result.record["plan"]["widths"]
    assert result.plan.is_uniform() is (widths == "uniform")
    assert (logits(model) - before).abs().max() > 1e-3
    assert logits(model).isfinite().all()


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("widths", ["per-layer", "uniform"])
def test_a_narrowed_decoder_generates_with_its_cache(family: str, widths: str) -> None:
    model = compressed(tiny_model(family), keep=0.4, widths=widths).model
    batch = tiny_batch(model)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    cached = model.generate(**batch, use_cache=True, **options)
    plain = model.generate(**batch, use_cache=False, **options)
    assert cached.shape == (2, 18)
    assert torch.equal(cached, plain)


def test_the_config_says_the_widths() -> None:
    model = compressed(tiny_model("llama"), keep=0.4, widths="uniform").model
    config = model.config
    assert set(units(model, "attention")) == {config.num_key_value_heads}
    assert config.num_attention_heads == 2 * config.num_key_value_heads
    assert set(units(model, "feed_forward")) == {config.intermediate_size}
    assert type(model) is transformers.LlamaForCausalLM


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_everything_changes_nothing(family: str) -> None:
    model = tiny_model(family)
    before = logits(model)
    result = compressed(model, keep=1)
    assert torch.equal(logits(model), before)
    assert result.record["cost"]["params"]["share"] == 1


def test_a_plan_in_memory_and_in_a_file_are_the_same(tmp_path: Path) -> None:
    widths = {"blocks.0.feed_forward": 13, "blocks.2.attention": 1}
    (tmp_path / "plan.json").write_text(json.dumps({"widths": widths}))
    states = []
    for plan in (widths, tmp_path / "plan.json", str(tmp_path / "plan.json")):
        result = compressed(tiny_model("llama"), keep=None, plan=plan)
        assert units(result.model, "feed_forward") == [13, 40, 40]
        assert units(result.model, "attention") == [2, 2, 1]
        states.append(result.model.state_dict())
    same_weights(*states)


def test_a_recorded_plan_repeats_the_run(tmp_path: Path) -> None:
    first = compressed(tiny_model("bert"), keep=0.5)
    (tmp_path / "plan.json").write_text(json.dumps(first.record["plan"]))
    again = compressed(tiny_model("bert"), keep=None, plan=tmp_path / "plan.json")
    same_weights(first.model.state_dict(), again.model.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["refit", "stat"])
def test_the_record_is_json_and_tells_what_was_done(family: str, method: str) -> None:
    result = compressed(tiny_model(family), keep=0.5, method=method)
    record = json.loads(json.dumps(result.record, allow_nan=False))
    assert record["versions"]["torch"] == torch.__version__
    assert record["data"]["samples"] == 24
    assert record["data"]["tokens"] == 24 * 24
    narrowed = {name for name, kept in result.plan.widths.items() if kept < record["units"][name]}
    # Method refit fits every consumer from the first block that is narrowed on.
    told = {site["site"] for site in record["trace"]["sites"]}
    assert told == narrowed if method == "stat" else told >= narrowed
    damages = record["trace"]["predicted"], record["trace"]["divergence"]
    assert damages == (None, None) if method == "stat" else min(damages) > 0
    for site in result.trace.sites:
        assert len(site.kept) == result.plan.widths[site.site]
        assert list(site.kept) == sorted(set(site.kept))
        assert 0 < site.relative_error < 1 or site.site not in narrowed
    assert result.trace.to_json() == result.record["trace"]


@pytest.mark.parametrize(
    ("family", "widths", "opener"),
    [("llama", "uniform", "AutoModelForCausalLM"), ("gpt2", "per-layer", "AutoModelForCausalLM"),
     ("bert", "per-layer", "AutoModelForMaskedLM"), ("llama", "per-layer", "AutoModelForCausalLM")],
)  # fmt: skip
def test_from_a_folder_to_a_folder(
    family: str, widths: str, opener: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "data.txt").write_text("\n".join(sentences()))
    result = statprune.compress(
        str(folders[family]),
        data=str(tmp_path / "data.txt"),
        out=tmp_path / "out",
        keep=0.5,
        widths=widths,
        samples=16,
        seq_len=32,
    )
    assert result.folder.path == tmp_path / "out"
    assert result.folder.stock is (widths == "uniform")
    loaded = getattr(transformers, opener).from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(loaded), logits(result.model))
    assert units(loaded, "feed_forward") == units(result.model, "feed_forward")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("a b").input_ids == result.tokenizer("a b").input_ids
    assert json.loads((tmp_path / "out" / "statprune.json").read_text()) == result.record
    for absolute in (tmp_path, folders[family]):
        assert str(absolute.parent) not in (tmp_path / "out" / "statprune.json").read_text()


def test_a_model_in_memory_is_saved_with_the_tokenizer_given(tmp_path: Path) -> None:
    model = tiny_model("llama")
    result = compressed(model, out=tmp_path / "out", tokenizer=letter_tokenizer(), widths="uniform")
    assert result.model is model
    stock = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    same_weights(stock.state_dict(), model.state_dict())
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_a_pruned_model_can_be_pruned_again(tmp_path: Path) -> None:
    compressed(tiny_model("llama"), keep=0.8, widths="per-layer", out=tmp_path / "first")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    narrow = in_projections(model)
    again = compressed(model, keep=0.5, widths="per-layer", out=tmp_path / "second")
    assert again.record["cost"]["params"]["dense"] == narrow
    assert in_projections(model) <= 0.5 * narrow
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "second")
    torch.testing.assert_close(logits(loaded), logits(model))


@pytest.mark.parametrize("given", [False, True])
def test_a_dry_run_changes_and_writes_nothing(given: bool, tmp_path: Path) -> None:
    model = tiny_model("llama").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = model.config.to_dict()
    options = {"keep": None, "plan": {"blocks.0.feed_forward": 8}} if given else {"keep": 0.5}
    dry = compressed(model, dry_run=True, **options)
    assert dry.model is None
    assert dry.trace.sites == []
    assert list(tmp_path.iterdir()) == []
    same_weights(before, model.state_dict())
    assert model.config.to_dict() == config
    assert model.training
    assert compressed(model, **options).plan == dry.plan, "the plan shown is the plan carried out"


def test_the_four_backends_agree() -> None:
    """One site is cut, so that its consumer reads the same in every model: its output error is comparable."""
    results = {
        backend: compressed(
            tiny_model("llama"),
            keep=None,
            plan={"blocks.1.feed_forward": 20},
            method="stat",
            backend=backend,
        )
        for backend in ("gram", "qr", "gaussian", "countsketch")
    }
    same_weights(results["gram"].model.state_dict(), results["qr"].model.state_dict(), exact=False)
    assert results["gram"].trace.sites[0].kept == results["qr"].trace.sites[0].kept
    error = {backend: block_one_error(result.model) for backend, result in results.items()}
    assert error["gram"] == pytest.approx(error["qr"], rel=1e-4)
    # 2 400 rows for 40 columns: errors of vectors are kept to about sqrt(40 / 2400) = 13%.
    for sketch in ("gaussian", "countsketch"):
        assert error["gram"] / 1.3 < error[sketch] < error["gram"] * 1.3
        assert error[sketch] != error["gram"]


@torch.no_grad()
def block_one_error(model: PreTrainedModel) -> float:
    """|| dense - pruned || / || dense || of the output of block 1's neurons, over the calibration batches."""
    outputs: list[list[Tensor]] = [[], []]
    for each, seen in zip((tiny_model("llama"), model), outputs, strict=True):
        consumer = module_at(anatomy_of(each).blocks[1], "mlp.down_proj")
        hook = consumer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
        for batch in batches(each):
            each(**batch)
        hook.remove()
    dense, pruned = torch.cat(outputs[0]), torch.cat(outputs[1])
    return float((dense - pruned).norm() / dense.norm())


def same_weights(first: dict[str, Tensor], *others: dict[str, Tensor], exact: bool = True) -> None:
    for other in others:
        assert set(first) == set(other)
        for name, value in first.items():
            if exact:
                assert torch.equal(value, other[name]), name
            else:
                torch.testing.assert_close(value, other[name], atol=1e-4, rtol=1e-4)
