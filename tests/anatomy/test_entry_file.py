"""An entry of one's own: from the draft that an error prints to a folder that loads."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

import statprune
from statprune.anatomy import lookup
from statprune.anatomy.draft import draft_entry
from statprune.anatomy.entry_file import entry_of, read_entry
from statprune.anatomy.lookup import ARCHITECTURES, anatomy_of, context_of, entry_for
from statprune.anatomy.parts import Context, Unprunable
from statprune.checkpoint.load import load
from statprune.cli.export import TARGETS
from statprune.cli.main import run
from statprune.errors import ModelError, UnknownArchitectureError
from tests.saved import letter_tokenizer, sentences
from tests.tiny import tiny_batch, tiny_model


def olmo() -> PreTrainedModel:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.OlmoConfig(
        **sizes, **ids, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return transformers.OlmoForCausalLM(config).eval()


@pytest.fixture(autouse=True)
def _nothing_stays_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_registered", [])


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """The draft of an error, saved as it is: nothing of an Olmo is left to fill in."""
    with pytest.raises(UnknownArchitectureError) as caught:
        anatomy_of(olmo())
    said, _, text = str(caught.value).partition(":\n")
    assert "give it with --entry FILE or statprune.register(FILE)" in said
    path = tmp_path / "olmo.toml"
    path.write_text(text)
    return path


def test_a_draft_is_registered_checked_and_used(draft: Path, tmp_path: Path) -> None:
    entry = statprune.register(draft)
    assert entry.model_types == ("olmo",)
    assert statprune.register(draft) == entry, "twice is once"
    model, batches = olmo(), [tiny_batch(tiny_model("llama"), rows=32, seed=seed) for seed in (1, 2)]
    out = tmp_path / "out"
    made = statprune.compress(model, data=batches, keep=0.6, out=out)
    assert made.record["cost"]["params"]["share"] <= 0.6
    assert type(made.model).__name__ == "StatpruneOlmoForCausalLM"
    expected = made.model(**batches[0]).logits
    torch.testing.assert_close(load(out).model(**batches[0]).logits, expected)
    lookup._registered.clear()
    with pytest.raises(ModelError, match=r"'olmo' was pruned by an entry of one's own.*--entry FILE"):
        load(out)
    # Elsewhere nobody knows the entry; the code in the folder needs none.
    torch.save((batches[0], expected), tmp_path / "expected.pt")
    check = f"""
import sys; sys.modules["statprune"] = None
import torch, transformers
batch, expected = torch.load({str(tmp_path / "expected.pt")!r})
model = transformers.AutoModelForCausalLM.from_pretrained({str(out)!r}, trust_remote_code=True)
torch.testing.assert_close(model(**batch).logits, expected)
"""
    assert subprocess.run([sys.executable, "-c", check], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_hides_no_wrong_entry(dtype: torch.dtype, draft: Path) -> None:
    batches = [tiny_batch(tiny_model("llama"), rows=16)]
    statprune.register(draft)
    statprune.compress(olmo().to(dtype), data=batches, keep=0.6)
    lookup._registered.clear()
    swapped = (
        ('gate = "mlp.gate_proj"', 'gate = "mlp.up_proj"'),
        ('up = "mlp.up_proj"', 'up = "mlp.gate_proj"'),
    )
    text = draft.read_text()
    for before, after in swapped:
        text = text.replace(f"\n{before}", f"\n{after}")
    draft.write_text(text)
    statprune.register(draft)
    with pytest.raises(ModelError, match="check activation, gate or up"):
        statprune.compress(olmo().to(dtype), data=batches, keep=0.6)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        # A wrong residual: the block goes on with another sum.
        (
            'residual = ["post_attention_layernorm"]',
            'residual = [""]',
            "the input of the block .* the output of mlp.down_proj is read nowhere.*check residual",
        ),
        # Nobody reads these heads.
        ('key = "self_attn.k_proj"', 'key = "self_attn.q_proj"', "check widths"),
        (
            'gate = "mlp.gate_proj"\nup = "mlp.up_proj"',
            'gate = "mlp.up_proj"\nup = "mlp.gate_proj"',
            "what mlp.act_fn makes of mlp.up_proj.* check activation, gate or up",
        ),
        ('activation = "mlp.act_fn"', 'activation = "mlp.act"', "no attribute 'act'"),
        (
            'activation = "mlp.act_fn"',
            'activation = "mlp.hidden_size"',
            "cannot be computed.* check activation",
        ),
        ('gate = "mlp.gate_proj"\n', "", "with half of its units the block fails"),
        ('neurons = "intermediate_size"', 'neurons = "hidden_size"', "check widths|once saved and opened"),
        ('blocks = "layers"', 'blocks = "blocks"', "has no attribute 'blocks'"),
        ('blocks = "layers"', 'blocks = "layers"\nextras = 1', "do not run one by one: .* check extras"),
        ('neurons = "intermediate_size"', 'neurons = "ffn"', "no attribute 'ffn'.* check widths"),
    ],
)
def test_a_wrong_entry_is_found_out_before_the_data_is_read(
    before: str, after: str, said: str, draft: Path
) -> None:
    text = draft.read_text()
    assert before in text
    draft.write_text(text.replace(before, after))
    statprune.register(draft)
    model = olmo()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=said):
        statprune.compress(model, data=[tiny_batch(tiny_model("llama"), rows=16)], keep=0.6)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('blocks = "layers"', 'blocks = "?"', r"stacks\[0\]: blocks is '\?'. Fill it in"),
        ('blocks = "layers"', "blocks = 3", r"stacks\[0\]: blocks is 3; give a text"),
        ('blocks = "layers"\n', "", r"stacks\[0\]: blocks is missing"),
        ('kind = "decoder"', 'kind = "sequence"', "kind is 'sequence'; choose one of decoder, encoder"),
        ('query = "self_attn.q_proj"', 'queries = "self_attn.q_proj"', "queries is no key; known are query"),
        ('residual = ["post_attention_layernorm"]', 'residual = "norm"', "residual is 'norm'; give a list"),
        ("[[stacks]]", "[stack]", "stacks is a table; give at least one"),
        ('model_types = ["olmo"]', 'model_types = ["llama"]', "'llama' has an entry already"),
        ('model_types = ["olmo"]', "model_types = [", "is not TOML"),
        (
            "[stacks.attention]",
            '[stacks.attention]\nfused = "mixed"',
            "fused is 'mixed'; choose one of",
        ),
    ],
)
def test_what_is_no_entry_is_refused(before: str, after: str, said: str, draft: Path) -> None:
    text = draft.read_text()
    assert before in text
    draft.write_text(text.replace(before, after))
    with pytest.raises(ModelError, match=said):
        statprune.register(draft)
    assert entry_for("olmo") is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        statprune.register(tmp_path / "nothing.toml")


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neo", "opt", "bert", "distilbert"])
def test_the_draft_of_a_known_family_is_its_entry(model_type: str, tmp_path: Path) -> None:
    """Where everything has a common name; what has not is "?"."""
    path = tmp_path / "draft.toml"
    text = draft_entry(tiny_model(model_type))
    path.write_text(
        text.replace('"?"', '"filled in"').replace('fused = "filled in"', 'fused = "concatenated"')
    )
    drawn, known = read_entry(path).stacks[0], entry_for(model_type).stacks[0]
    assert drawn.blocks == known.blocks
    for part in ("attention", "feed_forward"):
        for name in ("query", "key", "value", "out", "gate", "up", "down"):
            found = getattr(getattr(drawn, part), name, None)
            assert found in (getattr(getattr(known, part), name, None), "filled in")


def test_every_entry_survives_being_told_as_data() -> None:
    assert len({name for entry in ARCHITECTURES for name in entry.model_types}) == sum(
        len(entry.model_types) for entry in ARCHITECTURES
    )
    for entry in ARCHITECTURES:
        assert entry_of(as_data(entry), "here") == entry


def as_data(value: Any) -> Any:
    """As TOML would give it: tables and lists, without what is left at its default."""
    if isinstance(value, Unprunable):
        return {"unprunable": value.reason}
    if is_dataclass(value):
        told = {each.name: (getattr(value, each.name), each.default) for each in fields(value)}
        return {name: as_data(held) for name, (held, default) in told.items() if held != default}
    if isinstance(value, Mapping):
        return {name: as_data(each) for name, each in value.items()}
    return [as_data(each) for each in value] if isinstance(value, tuple) else value


def test_a_draft_names_widths_as_the_config_stores_them() -> None:
    """GPT-J's config answers to num_attention_heads too, but per layer it can be told n_head alone."""
    config = transformers.GPTJConfig(vocab_size=64, n_embd=32, n_layer=1, n_head=4, rotary_dim=4)
    text = draft_entry(transformers.GPTJForCausalLM(config))
    assert 'heads = "n_head"' in text
    assert 'neurons = "n_inner"' in text


def test_positions_without_a_limit_and_a_limit_that_is_not_there() -> None:
    bloom, known = transformers.BloomConfig(), entry_for("llama")
    assert known is not None
    assert context_of(known, bloom) is None
    with pytest.raises(ModelError, match=r"the config of bloom has no 'n_positions'\. Correct context"):
        context_of(replace(known, context=Context("n_positions")), bloom)


def test_an_export_takes_an_entry(draft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = []
    monkeypatch.setitem(TARGETS, "onnx", lambda *_: known.append(entry_for("olmo")) or sys.exit(0))
    with pytest.raises(SystemExit):
        run(["export", str(tmp_path), "--to", "onnx", "--entry", str(draft)])
    assert known == [statprune.register(draft)]


def test_the_command_line_takes_an_entry(draft: Path, tmp_path: Path) -> None:
    olmo().save_pretrained(tmp_path / "olmo")
    letter_tokenizer().save_pretrained(tmp_path / "olmo")
    (tmp_path / "text.txt").write_text("\n".join(sentences(200)))
    command = [sys.executable, "-m", "statprune"]
    told = [str(tmp_path / "olmo"), "--entry", str(draft)]
    shown = subprocess.run([*command, "inspect", *told, "--json"], check=True, capture_output=True)
    assert json.loads(shown.stdout)["model_type"] == "olmo"
    options = ["--keep", "0.7", "--data", str(tmp_path / "text.txt"), "--samples", "16", "--seq-len", "32"]
    made = subprocess.run(
        [*command, "compress", *told, *options, "--out", str(tmp_path / "out"), "--json"],
        check=False,
        capture_output=True,
    )
    assert made.returncode == 0, made.stderr
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "olmo"
