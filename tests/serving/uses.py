"""Run in a process of its own: everything people do with a per-layer folder, and what came of it as JSON.

    python uses.py trusted|imported FOLDER:OPENER:USE,USE...

`trusted` blocks this package and takes the code in the folder; `imported` takes this package.
"""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

OPTIONS = {"trust_remote_code": True} if sys.argv[1] == "trusted" else {}
if OPTIONS:
    sys.modules["statprune"] = None  # type: ignore[assignment]
else:
    import statprune  # noqa: F401

import torch  # noqa: E402 - what is blocked above must not be imported by these
import transformers  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers.configuration_utils import get_head_shapes  # noqa: E402

torch.set_num_threads(1)


def opened(folder: Path, opener: str, **options: Any) -> Any:
    return getattr(transformers, "AutoModel" + opener).from_pretrained(folder, **OPTIONS, **options)


def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits.float()


def gap(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Of any output, so that it works for every head: nearer to zero is less."""
    return model(**batch).logits.float().square().mean()


def generated(model: Any, batch: dict[str, Tensor], **options: Any) -> list[list[int]]:
    fixed = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    inputs = {name: value for name, value in batch.items() if not name.startswith("decoder_")}
    return model.generate(**inputs, **fixed, **options).tolist()


def config(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> Any:
    """What the config says of every block, read without the code in the folder."""
    read = transformers.AutoConfig.from_pretrained(folder)
    names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    layers = [{name: getattr(each, name, None) for name in names} for each in read.per_layer_config]
    return {"class": type(read).__module__, "layers": layers, "shapes": get_head_shapes(read)}


def built(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> dict[str, list[int]]:
    """Sizes of the weights of the base model as servers build it: from the config alone, on no device."""
    read = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        made = transformers.AutoModel.from_config(read, **OPTIONS)
    return {name: list(value.shape) for name, value in made.state_dict().items()}


def caches(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> Any:
    plain = generated(model, batch, use_cache=False)
    beams = generated(model, batch, use_cache=False, num_beams=3)
    return {
        "dynamic": generated(model, batch) == plain,
        "static": generated(model, batch, cache_implementation="static") == plain,
        "beams": generated(model, batch, num_beams=3) == beams,
    }


def compiled(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> float:
    torch._dynamo.reset()
    faster = torch.compile(model, backend=os.environ.get("COMPILE_WITH", "eager"))
    return gap(logits(faster, batch), logits(model, batch))


def bfloat16(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> Any:
    half = opened(folder, opener, dtype=torch.bfloat16)
    cast = {name: v.bfloat16() if v.is_floating_point() else v for name, v in batch.items()}
    found, whole = logits(half, cast), logits(model, batch)
    return {"dtype": str(half.dtype), "relative": gap(found, whole) / whole.abs().max().item()}


def offloaded(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> Any:
    loose = [name for name, _ in model.named_buffers(recurse=False)]
    places = dict.fromkeys([name for name, _ in model.named_children()] + loose, "disk")
    with tempfile.TemporaryDirectory() as scratch:
        thrifty = opened(folder, opener, device_map=places, offload_folder=scratch)
        away = sum(parameter.is_meta for parameter in thrifty.parameters())
        return {"away": away, "gap": gap(logits(thrifty, batch), logits(model, batch))}


def checkpointed(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> float:
    """How far gradients with gradient checkpointing are from those without, relative to the largest."""
    gradients = []
    for enabled in (False, True):
        fresh = opened(folder, opener, attn_implementation="eager")
        if enabled:
            fresh.gradient_checkpointing_enable()
        # Checkpointing is done in training alone, and repeats what dropout drew.
        fresh.train()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            loss(fresh, batch).backward()
        found = [each.grad.flatten() for each in fresh.parameters() if each.grad is not None]
        gradients.append(torch.cat(found))
    plain, again = gradients
    return gap(plain, again) / plain.abs().max().item()


def trained(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> Any:
    """A step of all weights, then saved by transformers itself and opened twice more."""
    fresh = opened(folder, opener)
    optimiser = torch.optim.SGD(fresh.parameters(), lr=1e-3)
    before = loss(fresh, batch)
    before.backward()
    optimiser.step()
    fresh.eval()
    expected = logits(fresh, batch)
    with tempfile.TemporaryDirectory() as scratch:
        again, model = Path(scratch) / "again", fresh
        for _ in range(2):
            model.save_pretrained(again)
            model = opened(again, opener).eval()
        content = json.loads((again / "config.json").read_text())
        base = transformers.AutoModel.from_pretrained(again, **OPTIONS)
        return {
            "less": bool(loss(fresh, batch) < before),
            "gap": gap(logits(model, batch), expected),
            "code": (again / "modeling_statprune.py").exists(),
            "auto_map": sorted(content.get("auto_map") or {}),
            "architecture": content["architectures"][0],
            "base": type(base).__name__,
        }


def adapted(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> Any:
    """LoRA: three steps, merged, saved and opened again."""
    import peft  # noqa: PLC0415

    fresh = opened(folder, opener)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear")
        adapter = peft.get_peft_model(fresh, settings)
    losses = []
    optimiser = torch.optim.SGD([p for p in adapter.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        value = loss(adapter, batch)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    state = adapter.get_base_model().state_dict()
    still = {name.replace(".base_layer", ""): value for name, value in state.items() if "lora_" not in name}
    unchanged = all(torch.equal(value, before[name]) for name, value in still.items())
    adapter.eval()
    expected = logits(adapter, batch)
    with tempfile.TemporaryDirectory() as scratch:
        alone, merged = Path(scratch) / "adapter", Path(scratch) / "merged"
        adapter.save_pretrained(alone)
        back = peft.PeftModel.from_pretrained(opened(folder, opener), alone).eval()
        apart = gap(logits(back, batch), expected)
        adapter.merge_and_unload().save_pretrained(merged)
        whole = opened(merged, opener)
        return {
            "losses": losses,
            "unchanged": unchanged and len(still) == len(before),
            "adapter": apart,
            "merged": gap(logits(whole, batch), expected),
            "moved": gap(expected, logits(model, batch)),
            "code": (merged / "modeling_statprune.py").exists(),
        }


def piped(folder: Path, opener: str, batch: dict[str, Tensor], model: Any) -> Any:
    made = transformers.pipeline("text-generation", model=str(folder), **OPTIONS)
    text = made("abc", max_new_tokens=4, do_sample=False)[0]["generated_text"]
    return {"class": type(made.model).__name__, "text": text}


def main() -> None:
    found: dict[str, Any] = {}
    for argument in sys.argv[2:]:
        path, opener, uses = argument.rsplit(":", 2)
        folder = Path(path)
        batch, _ = torch.load(f"{path}.pt", weights_only=True)
        model = opened(folder, opener)
        for use in uses.split(","):
            key = f"{folder.name} {use}"
            try:
                found[key] = globals()[use](folder, opener, batch, model)
            except Exception:  # told by the test, beside what came of the others
                found[key] = traceback.format_exc(limit=-4)
    sys.stdout.write(f"\n{json.dumps(found)}\n")


main()
