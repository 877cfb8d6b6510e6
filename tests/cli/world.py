"""A folder of tiny models and data, good ones and one for everything that can be wrong with one."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.saved import letter_tokenizer, save_tiny, sentences

CSV = "a,b,n\nsome words,more words,1\nother words,last words,2\n"


def build_world(root: Path) -> Path:
    """`root` with everything in it; made once, read by all, changed by none."""
    save_tiny(root / "llama", "llama")
    save_tiny(root / "bert", "bert")
    _models(root)
    _data(root)
    (root / "taken").mkdir()
    (root / "taken" / "mine.txt").write_text("mine")
    for name, plan in PLANS.items():
        (root / f"{name}.json").write_text(plan if isinstance(plan, str) else json.dumps(plan))
    return root


PLANS: dict[str, Any] = {
    "plan": {"widths": {"blocks.0.feed_forward": 13}},
    "plan-empty": {"widths": {}},
    "plan-unknown": {"widths": {"blocks.7.feed_forward": 8}},
    "plan-large": {"widths": {"blocks.0.feed_forward": 41}},
    "plan-zero": {"widths": {"blocks.0.attention": 0}},
    "plan-broken": '{"widths": ',
    "plan-list": [1, 2],
    "plan-newer": {"format": 9, "widths": {"blocks.0.attention": 1}},
}


def _data(root: Path) -> None:
    lines = sentences(60)
    (root / "text.txt").write_text("\n\n".join(lines))
    (root / "text.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (root / "short.txt").write_text("only a few")
    (root / "empty.txt").write_text("")
    (root / "empty.jsonl").write_text("\n")
    (root / "bad.jsonl").write_text('{"text": "fine"}\n{"text": "broken\n')
    (root / "null.jsonl").write_text('{"text": "fine"}\n{"text": null}\n')
    (root / "pairs.csv").write_text(CSV)
    (root / "latin.txt").write_bytes(b"caf\xe9 " * 100)
    (root / "no-data").mkdir()


def _models(root: Path) -> None:
    def edited(name: str, **values: Any) -> Path:
        shutil.copytree(root / "llama", root / name)
        config = root / name / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | values))
        return root / name

    def with_value(name: str, value: float) -> None:
        weights = edited(name) / "model.safetensors"
        tensors = load_file(weights)
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
        save_file(tensors, weights, metadata={"format": "pt"})

    with_value("nan", float("nan"))
    with_value("inf", float("inf"))
    edited("quantised", quantization_config={"quant_method": "gptq", "bits": 4})
    edited("unheard-of", model_type="lama")
    edited("wide", hidden_size="wide")
    edited("other-class", architectures=["LlamaForNothing"])
    edited("own-code", architectures=["Own"], auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    (edited("no-config") / "config.json").unlink()
    (edited("no-weights") / "model.safetensors").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (edited(f"no-{name}") / name).unlink()
    shutil.copytree(root / "llama", root / "no-tokenizer", ignore=shutil.ignore_patterns("*token*"))

    pickled = edited("pickled") / "model.safetensors"
    torch.save(load_file(pickled), pickled.with_name("pytorch_model.bin"))
    pickled.unlink()
    whole = (edited("truncated") / "model.safetensors").read_bytes()
    (root / "truncated" / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    (root / "adapter").mkdir()
    (root / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_tiny(root / "few-words", "llama", vocab_size=16)
    save_tiny(root / "no-head", "llama", head="LlamaModel")
    save_tiny(root / "decoding-bert", "bert", head="BertLMHeadModel", is_decoder=True)

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    config = transformers.OlmoConfig(**sizes, num_attention_heads=4, max_position_embeddings=64)
    transformers.OlmoForCausalLM(config).save_pretrained(root / "olmo")
    letter_tokenizer().save_pretrained(root / "olmo")
