"""Family by family, on tiny random models: what cutting, reloading, generating and exporting differ by.

    python -m benchmarks.serving.families            # all, and writes the page
    python -m benchmarks.serving.families gpt2 phi3  # these, and writes nothing

GGUF is computed with where llama-cpp-python is installed, ONNX where ONNX Runtime is.
"""

import argparse
import ast
import tempfile
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.protocol import table, write
from statprune.anatomy import decoders, encoder_decoders, encoders
from statprune.anatomy.lookup import anatomy_of, entry_for
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.calibration.batches import inputs_of
from statprune.checkpoint.load import load
from statprune.checkpoint.save import save
from statprune.checkpoint.stock import stock_units
from statprune.checkpoint.widths import adopt
from statprune.errors import ModelError
from statprune.export.gguf import export_gguf
from statprune.export.onnx import export_onnx
from statprune.surgery.linear import weight_of
from tests.tiny import MODEL_TYPES, random_cut, tiny_batch, tiny_model, uneven_cut, uniform_cut

APPENDED = 12


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**inputs_of(model, tiny_batch(model, rows=4, seed=9))).logits
    return found


def apart(one: PreTrainedModel, other: PreTrainedModel) -> str:
    return f"{float((logits(one) - logits(other)).abs().max()):.1e}"


def read_by(model: PreTrainedModel, site: Site) -> torch.Tensor:
    """What reads the units, (out, columns); of experts (experts, out, columns)."""
    consumer = module_at(anatomy_of(model).blocks[site.block], site.consumer)
    return consumer.down_proj.detach() if site.experts else weight_of(consumer)


def cut_against_mask(model_type: str) -> str:
    """In float64: units cut, against the same units' columns zeroed."""
    model = tiny_model(model_type).double()
    narrowed, masked = uneven_cut(deepcopy(model)), model
    for whole, thin in zip(anatomy_of(masked).sites, anatomy_of(narrowed).sites, strict=True):
        weight = read_by(masked, whole)
        kept = read_by(narrowed, thin)
        there = (weight[..., :, None] == kept[..., None, :]).all(dim=-3).any(dim=-1)
        weight.mul_(there.unsqueeze(-2))
    return apart(narrowed, masked)


def saved(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model as it comes back from a folder, verified on the way."""
    adopt(model, anatomy_of(model))
    batch = {name: value[:2] for name, value in tiny_batch(model).items()}
    save(model, anatomy_of(model), folder, source=None, tokenizer=None, record={}, verify_batch=batch)
    return load(folder).model


def stock_cut(model_type: str) -> tuple[PreTrainedModel, str]:
    """As much as a stock config can say, the same in every block, and what that is."""
    model = tiny_model(model_type)
    said = stock_units(model, anatomy_of(model))
    kept = {}
    for site in anatomy_of(model).sites:
        if site.kind == "attention":
            kept[site.name] = range(said[site.name][0])
        else:
            kept[site.name] = range(0, site.units, 2)
    heads = any(len(units) > 1 for units in said.values())
    return random_cut(model, kept), "heads, neurons" if heads else "neurons"


def generated(model: PreTrainedModel) -> str:
    """Whether greedy generation with a cache equals that without one."""
    if not model.can_generate():
        return ""
    batch = inputs_of(model, tiny_batch(model, rows=2, length=6, seed=5))
    batch = {name: value for name, value in batch.items() if not name.startswith("decoder_")}
    options = {"max_new_tokens": APPENDED, "min_new_tokens": APPENDED, "do_sample": False}
    with torch.no_grad():
        one, other = (model.generate(**batch, **options, use_cache=cache) for cache in (True, False))
    return "equal" if torch.equal(one, other) else "DIFFERS"


def in_gguf(folder: Path, out: Path) -> str:
    if find_spec("llama_cpp") is None:
        return "not tried"
    try:
        found = export_gguf(folder, out, tokenizer=False, dtype="f32")
    except ModelError:
        return ""
    return f"{found.architecture} {found.difference:.1e}"


def in_every_gguf(model_type: str, scratch: Path) -> str:
    """Stock and per layer; where llama.cpp cannot say fewer heads, stock with all of them."""
    stock, uneven = (in_gguf(scratch / name, scratch / f"{name}.gguf") for name in ("stock", "per-layer"))
    if not stock:
        saved(uniform_cut(tiny_model(model_type)), scratch / "all-heads")
        whole = in_gguf(scratch / "all-heads", scratch / "all-heads.gguf")
        stock = f"{whole} (all heads)" if whole else ""
    return ", ".join(filter(None, dict.fromkeys((stock, uneven))))


def lines_of(model_type: str) -> int:
    """Lines of the statement that makes the entry, and of those that it refers to."""
    entry = entry_for(model_type)
    for module in (decoders, encoders, encoder_decoders):
        name = next((name for name, value in vars(module).items() if value is entry), None)
        if name is None:
            continue
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        statements: dict[str, ast.stmt] = {
            each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)
        }
        for each in tree.body:
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
                statements[each.targets[0].id] = each
        needed, waiting = set(), [name]
        while waiting:
            one = waiting.pop()
            if one in statements and one not in needed:
                needed.add(one)
                waiting += [node.id for node in ast.walk(statements[one]) if isinstance(node, ast.Name)]
        return sum((statements[each].end_lineno or 0) - statements[each].lineno + 1 for each in needed)
    raise KeyError(model_type)


def row_for(model_type: str, scratch: Path) -> dict[str, Any]:
    stock, what = stock_cut(model_type)
    uneven = uneven_cut(tiny_model(model_type))
    opened = saved(uneven, scratch / "per-layer")
    row = {
        "family": model_type,
        "cut": cut_against_mask(model_type),
        "stock": f"{apart(saved(stock, scratch / 'stock'), stock)} ({what})",
        "per layer": apart(opened, uneven),
        "generate": generated(opened),
    }
    row["gguf"] = in_every_gguf(model_type, scratch)
    row["onnx"] = f"{export_onnx(scratch / 'per-layer', scratch / 'onnx').difference:.1e}"
    return row | {"lines": lines_of(model_type)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_types", nargs="*", help="by default all")
    only = parser.parse_args().model_types
    rows = []
    for model_type in only or MODEL_TYPES:
        with tempfile.TemporaryDirectory() as temporary:
            rows.append(row_for(model_type, Path(temporary)))
            print(rows[-1], flush=True)
    if only:
        return
    columns = ["family", "cut", "stock", "per layer", "generate", "gguf", "onnx", "lines"]
    write(
        "families",
        "Family by family",
        {
            "models": "tiny, random: 3 blocks, hidden 32, 4 heads, 40 neurons; logits reach 1 to 12",
            "cut": "largest difference of a logit between cutting units and zeroing their columns, float64",
            "stock": "the same with what stock transformers opens after saving (what was cut), float32",
            "per layer": "the same with widths that differ from block to block, float32",
            "generate": f"{APPENDED} greedy tokens with a cache and without, per layer",
            "gguf": "llama.cpp against transformers, stock and per layer: architecture, largest difference; "
            "gelu comes from its table of f16",
            "onnx": "ONNX Runtime against transformers, per layer, decoders with a cache: largest difference",
            "lines": "of the entry, with all that it refers to, some of it shared with others",
        },
        table(columns, [[str(row[column]) for column in columns] for row in rows]),
        rows,
    )


if __name__ == "__main__":
    main()
