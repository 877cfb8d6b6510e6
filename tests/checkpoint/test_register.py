"""Importing this package changes nothing for models that are not pruned per layer."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from folders import Case
from tiny import MODEL_TYPES, tiny_model, uneven_cut
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, pipeline

from statprune.anatomy.lookup import anatomy_of, entry_for
from statprune.checkpoint.classes import class_named, per_layer_class, stock_names
from statprune.checkpoint.widths import adopt


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_dense_models_keep_their_class(model_type: str, tmp_path: Path) -> None:
    model = tiny_model(model_type)
    model.save_pretrained(tmp_path)
    for auto, name in stock_names(model_type).items():
        opener, expected = getattr(transformers, auto), getattr(transformers, name)
        if expected.__module__.startswith(f"transformers.models.{model_type}."):
            assert type(opener.from_config(model.config)) is expected
    assert type(AutoModel.from_pretrained(tmp_path)) is getattr(
        transformers, stock_names(model_type)["AutoModel"]
    )


def test_a_config_without_architectures_still_opens() -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=16
    )
    assert config.architectures is None
    assert type(AutoModelForCausalLM.from_config(config)) is LlamaForCausalLM


def test_what_others_registered_stays_theirs() -> None:
    class TheirConfig(LlamaConfig):
        pass

    class TheirModel(LlamaForCausalLM):
        config_class = TheirConfig

    AutoModelForCausalLM.register(TheirConfig, TheirModel)
    config = TheirConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=16
    )
    assert type(AutoModelForCausalLM.from_config(config)) is TheirModel


def test_every_stock_class_of_every_family_has_a_per_layer_class() -> None:
    for model_type in MODEL_TYPES:
        entry = entry_for(model_type)
        assert entry is not None
        for name in set(stock_names(model_type).values()):
            stock_class = getattr(transformers, name)
            if not stock_class.__module__.startswith(f"transformers.models.{model_type}."):
                continue  # a head of another family on this base
            made = per_layer_class(stock_class, entry)
            assert made.__name__ == f"Statprune{name}"
            assert issubclass(made, stock_class)
            assert made is class_named(f"Statprune{name}")
            assert made is per_layer_class(made, entry)
            assert pickle.loads(pickle.dumps(made)) is made


def test_pipelines_accept_both(cases: list[Case], caplog: pytest.LogCaptureFixture) -> None:
    dense = tiny_model("bert", head="BertForSequenceClassification")
    pruned = uneven_cut(tiny_model("bert", head="BertForSequenceClassification"))
    adopt(pruned, anatomy_of(pruned))
    library = transformers.utils.logging.get_logger("transformers")
    library.addHandler(caplog.handler)
    try:
        for model in (dense, pruned):
            pipeline("text-classification", model=model, tokenizer=_tokenizer())("a b")
    finally:
        library.removeHandler(caplog.handler)
    assert "is not supported" not in caplog.text


def test_registering_waits_until_the_auto_classes_are_imported(fresh_python: Callable[..., str]) -> None:
    script = """
import sys, types
import torch, transformers
package = types.ModuleType("statprune")  # what the package itself imports is not measured here
package.__path__ = [sys.argv[1]]
sys.modules["statprune"] = package
before = set(sys.modules)
from statprune.checkpoint.register import register_all
register_all(); register_all()
new = {name for name in set(sys.modules) - before if not name.startswith("statprune")}
print(sorted(name for name in new if name.startswith(("transformers", "torch"))))
from transformers.models.auto import auto_factory
print(auto_factory._get_model_class.knows_per_layer, [f for f in sys.meta_path if "Wait" in type(f).__name__])
"""
    package = Path(__import__("statprune").__file__).parent
    assert fresh_python(script, str(package)).splitlines() == ["[]", "True []"]


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 4, "b": 5}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")
