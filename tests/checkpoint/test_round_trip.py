"""What is saved is what is loaded, for every model type and head."""

from pathlib import Path

import pytest
import torch
from folders import CASES, Case, outputs, write
from tiny import MODEL_TYPES, random_cut, tiny_batch, tiny_model, uneven_cut, uniform_cut

from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.load import load
from statprune.checkpoint.widths import adopt

NAMES = [f"{kind}-{head or 'default'}-{cut}" for kind, head, cut in CASES]


def assert_same(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    own, other = ours.state_dict(), theirs.state_dict()
    assert own.keys() == other.keys()
    for name, value in own.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("index", range(len(CASES)), ids=NAMES)
def test_a_loaded_folder_is_the_saved_model(cases: list[Case], index: int) -> None:
    case = cases[index]
    loaded = load(case.path).model
    uniform = CASES[index][2] == "uniform"
    stock_name = type(case.model).__name__
    assert case.saved.stock is uniform
    assert type(loaded).__name__ == (stock_name if uniform else f"Statprune{stock_name}")
    assert isinstance(loaded, type(case.model))
    assert not loaded.training
    assert_same(case.model, loaded)
    expected, found = outputs(case.model), outputs(loaded)
    assert expected
    for name, value in expected.items():
        # The weights lie elsewhere in memory, and the order of additions follows from that.
        largest = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("index", range(len(CASES)), ids=NAMES)
def test_the_sites_of_a_loaded_model_are_those_of_the_saved_one(cases: list[Case], index: int) -> None:
    case = cases[index]
    assert anatomy_of(load(case.path).model).sites == anatomy_of(case.model).sites


@pytest.mark.parametrize("model_type", ["llama", "opt", "gpt2", "bert", "distilbert"])
def test_an_adopted_model_saves_itself(model_type: str, tmp_path: Path) -> None:
    model = uneven_cut(tiny_model(model_type))
    stock_class, before = type(model), outputs(model)
    adopt(model, anatomy_of(model))
    assert isinstance(model, stock_class)
    assert type(model) is not stock_class
    model.save_pretrained(tmp_path / "own")
    loaded = load(tmp_path / "own").model
    assert type(loaded) is type(model)
    assert_same(model, loaded)
    for name, value in outputs(loaded).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bert"])
def test_a_per_layer_model_can_be_pruned_again(model_type: str, cases: list[Case], tmp_path: Path) -> None:
    case = next(case for case in cases if case.model.config.model_type == model_type and not case.saved.stock)
    model = load(case.path).model
    sites = anatomy_of(model).sites
    random_cut(model, {site.name: range(1, site.units) for site in sites if site.kind == "feed_forward"})
    adopt(model, anatomy_of(model))
    write(model, tmp_path / "again", verify_batch=tiny_batch(model))
    assert_same(model, load(tmp_path / "again").model)


def test_a_per_layer_model_that_becomes_uniform_becomes_stock(tmp_path: Path) -> None:
    dense = tiny_model("mistral")
    stock_class = type(dense)
    model = uneven_cut(dense)
    adopt(model, anatomy_of(model))
    write(model, tmp_path / "uneven")
    model = load(tmp_path / "uneven").model
    sites = anatomy_of(model).sites
    random_cut(model, {site.name: range(1 if site.kind == "attention" else 12) for site in sites})
    adopt(model, anatomy_of(model))
    assert type(model) is stock_class
    assert not model.config.is_heterogeneous
    saved = write(model, tmp_path / "even", verify_batch=tiny_batch(model))
    assert saved.stock
    assert not (saved.path / "modeling_statprune.py").exists()
    assert "statprune" not in (saved.path / "config.json").read_text()
    assert_same(model, load(saved.path).model)


@pytest.mark.parametrize("model_type", ["llama", "bert"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_is_kept(model_type: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = uneven_cut(tiny_model(model_type)).to(dtype)
    loaded = load(write(model, tmp_path / "out", verify_batch=tiny_batch(model)).path).model
    assert loaded.dtype == dtype
    assert_same(model, loaded)


@pytest.mark.parametrize("cut", [uniform_cut, uneven_cut])
def test_tied_weights_stay_tied(cut: type[uneven_cut], tmp_path: Path) -> None:
    model = cut(tiny_model("llama", tie_word_embeddings=True))
    loaded = load(write(model, tmp_path / "out").path).model
    for each in (model, loaded):
        assert each.lm_head.weight is each.model.embed_tokens.weight


def test_gpt2_without_n_inner(tmp_path: Path) -> None:
    for index, cut in enumerate((uniform_cut, lambda model: random_cut(model, {"blocks.1.attention": [0]}))):
        model = cut(tiny_model("gpt2", n_inner=None))
        saved = write(model, tmp_path / str(index), verify_batch=tiny_batch(model))
        assert_same(model, load(saved.path).model)


def test_many_shards(tmp_path: Path) -> None:
    model = uneven_cut(tiny_model("llama"))
    saved = write(model, tmp_path / "out", max_shard_size="20KB", verify_batch=tiny_batch(model))
    assert len(list(saved.path.glob("*.safetensors"))) > 1
    assert_same(model, load(saved.path).model)


def test_saving_leaves_the_model_in_memory_as_it_is(tmp_path: Path) -> None:
    model = uneven_cut(tiny_model("llama"))
    model.train()
    config, kind = dict(model.config.__dict__), type(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generation = model.generation_config
    write(model, tmp_path / "out", verify_batch=tiny_batch(model))
    assert model.config.__dict__ == config
    assert type(model) is kind
    assert model.training
    assert model.generation_config is generation
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_model_from_a_folder_is_saved_as_one_made_in_memory(model_type: str, tmp_path: Path) -> None:
    """Transformers renames weights when it opens a folder, and remembers how: GPT-NeoX's head was lost so."""
    tiny_model(model_type).save_pretrained(tmp_path / "dense")
    model = uneven_cut(load(tmp_path / "dense").model)
    saved = write(model, tmp_path / "out")
    assert_same(model, load(saved.path).model)
    stock_class = type(model)
    adopt(model, anatomy_of(model))
    assert type(model) is not stock_class
    model.save_pretrained(tmp_path / "own")
    assert_same(model, load(tmp_path / "own").model)
