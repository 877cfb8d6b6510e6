"""Perplexity after SliceGPT, by its own code, on the windows that statprune calibrates and evaluates on.

SliceGPT needs an older transformers, so there are two steps, in two environments:

    STATPRUNE_SHARED=... python benchmarks/quality/slicegpt.py --prepare --models MODELS --ids IDS
    python benchmarks/quality/slicegpt.py --slicegpt CHECKOUT --models MODELS --ids IDS

The first, in statprune's environment, writes copies of the models that transformers 4.41 reads (output head
untied), and the token ids of every window. The second, in SliceGPT's (`pip install torch transformers==4.41.0
datasets==2.18.0 "pyarrow<18" "numpy<2" accelerate ml-collections`), slices and measures; CHECKOUT is a clone
of github.com/microsoft/TransformerCompression. It refuses a copy whose logits are not the original's.

`share` counts all weights in the blocks, the matrices that SliceGPT adds to the residual connections too,
over those of the dense projections. The hidden size taken is the largest whose share is within the budget.

SliceGPT subtracts from every embedding its mean, which changes a model that has RMSNorm (`folded` in the
rows: perplexity before any slicing). "rows" in slicegpt.json are SliceGPT as published; in "embeddings_kept"
this one step is undone.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# ruff: noqa: PLC0415 - each step imports what only its own environment has

MODELS = ("wiki-llama-7m", "stories260K")
TESTS = {"WikiText-2": "data/wikitext-2/wiki.test.raw", "C4": "data/c4/c4.txt"}
KEEP = (0.875, 0.75, 0.625, 0.5)
SEEDS = (0, 1, 2)
SAMPLES, SEQ_LEN, TOKENS = 128, 256, 38_400
BATCH = 16  # the default of SliceGPT's script
METHODS = ("slicegpt", "slicegpt, embeddings kept")
LOGITS_AGREE, PERPLEXITY_AGREES = 1e-5, 1e-4


def prepare(models: Path, ids: Path) -> None:
    """Models that transformers 4.41 reads, and the ids, logits and perplexities of the originals."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from protocol import articles, shared

    from statprune import evaluate
    from statprune.calibration.records import from_memory, read
    from statprune.calibration.samples import windows
    from statprune.calibration.tokens import token_stream
    from statprune.inputs import open_model

    excluded = shared("data/wikipedia/exclude_titles.txt").read_text(encoding="utf-8").splitlines()
    texts = from_memory(articles(shared("data/wikipedia/AE.jsonl.xz"), excluded, 5_000_000))
    ids.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        source = shared(f"models/{name}")
        copy(source, models / name)
        opened = open_model(source, device="cpu")
        for seed in SEEDS:
            generator = torch.Generator().manual_seed(seed)
            drawn = windows(texts, opened.tokenizer, samples=SAMPLES, seq_len=SEQ_LEN, generator=generator)
            torch.save(torch.cat([b["input_ids"] for b in drawn.batches]), ids / f"calib-{name}-{seed}.pt")
        rows, dense = {}, {}
        for test, path in TESTS.items():
            data = str(shared(path))
            stream = token_stream(read(data, tokenizer=opened.tokenizer), opened.tokenizer)
            rows[test] = stream.windows(SEQ_LEN)[: TOKENS // SEQ_LEN].clone()
            found = evaluate(source, data=data, seq_len=SEQ_LEN, max_tokens=TOKENS, device="cpu")
            dense[test] = found.perplexity
        with torch.no_grad():
            logits = opened.model(input_ids=rows["WikiText-2"][:BATCH], use_cache=False).logits
        torch.save({"ids": rows, "dense": dense, "logits": logits}, ids / f"eval-{name}.pt")
        print(name, dense, flush=True)


def copy(source: Path, target: Path) -> None:
    """The model with the fields of transformers 4, and a head of its own."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {
        "rope_theta": config.pop("rope_parameters")["rope_theta"],
        "torch_dtype": config.pop("dtype"),
        "tie_word_embeddings": False,
        "transformers_version": "4.41.0",
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = load_file(source / "model.safetensors")
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"].clone())
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def opened_adapter(folder: Path) -> Any:
    """The model in SliceGPT's hands, as its script loads a local one; the name only picks the adapter."""
    from slicegpt.model_adapter import ModelAdapter

    adapter = ModelAdapter.from_model(
        "meta-llama/Llama-2", model_path=str(folder), dtype=torch.float32, local_files_only=True
    )
    adapter.model.eval()
    adapter.use_cache = False
    return adapter


def folded(adapter: Any, method: str) -> Any:
    """The same adapter, norms folded into the projections behind them, and blocks replaced by SliceGPT's."""
    from slicegpt import layernorm_fusion

    embeddings = [each.weight.detach().clone() for each in adapter.get_embeddings()]
    layernorm_fusion.replace_layers(adapter, verbose=False)
    layernorm_fusion.fuse_modules(adapter)
    if method != "slicegpt":
        for each, weight in zip(adapter.get_embeddings(), embeddings, strict=True):
            each.weight.data = weight
    return adapter


def sliced(folder: Path, method: str, batches: list[dict[str, Tensor]], dimension: int) -> tuple[Any, float]:
    """The sliced model, and the seconds that slicing took, loading left out."""
    import numpy as np
    from slicegpt.rotate import rotate_and_slice
    from slicegpt.slicing_scheduler import ConstSlicingScheduler

    adapter = opened_adapter(folder)
    # SliceGPT draws the final orientation, which changes rounding only, from the global generator.
    np.random.seed(0)  # noqa: NPY002, TID251
    began = time.perf_counter()
    folded(adapter, method)
    rotate_and_slice(adapter, batches, ConstSlicingScheduler(dimension), final_orientation="random")
    return adapter, time.perf_counter() - began


def weights_at(adapter: Any, dimension: int) -> int:
    """Weights in the blocks sliced to `dimension`; only the last block writes the whole hidden size."""
    layers, total = adapter.get_layers(), 0
    for number, layer in enumerate(layers):
        out = adapter.hidden_size if number == len(layers) - 1 else dimension
        inputs = sum(each.out_features for each in (*layer.get_attention_inputs(), *layer.get_mlp_inputs()))
        total += dimension * (inputs + layer.get_attention_output().in_features + dimension)
        total += out * (layer.get_mlp_output().in_features + dimension)
    return total


def block_weights(adapter: Any) -> int:
    return sum(p.numel() for layer in adapter.get_layers() for p in layer.layer.parameters() if p.dim() == 2)


@torch.no_grad()
def perplexities(model: nn.Module, tests: dict[str, Tensor]) -> dict[str, float]:
    found = {}
    for name, windows in tests.items():
        total = 0.0
        for ids in torch.split(windows, BATCH):
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
            losses = nn.functional.cross_entropy(logits.float(), ids[:, 1:].flatten(), reduction="none")
            total += float(losses.double().sum())
        found[name] = math.exp(total / windows[:, 1:].numel())
    return found


@torch.no_grad()
def pass_seconds(model: nn.Module, batches: list[dict[str, Tensor]]) -> float:
    """One forward pass over the calibration windows."""
    began = time.perf_counter()
    for batch in batches:
        model(**batch, use_cache=False)
    return time.perf_counter() - began


def require_same(name: str, adapter: Any, known: dict[str, Any]) -> dict[str, float]:
    """Perplexities of the dense copy, if logits and perplexities are those of the original."""
    with torch.no_grad():
        logits = adapter.model(input_ids=known["ids"]["WikiText-2"][:BATCH], use_cache=False).logits
    apart = float((logits - known["logits"]).abs().max())
    found = perplexities(adapter.model, known["ids"])
    off = max(abs(found[test] - known["dense"][test]) for test in found)
    print(f"{name}: copy's logits {apart:.1e}, perplexities {off:.1e} apart: {found}", flush=True)
    if apart > LOGITS_AGREE or off > PERPLEXITY_AGREES:
        sys.exit(f"{name}: the copy is not the model")
    return found


def measure(name: str, models: Path, ids: Path) -> Iterator[dict[str, Any]]:
    known, folder = torch.load(ids / f"eval-{name}.pt"), models / name
    original = opened_adapter(folder)
    dense, total = require_same(name, original, known), block_weights(original)
    at = {dimension: weights_at(original, dimension) for dimension in range(1, original.hidden_size)}
    sizes = [max(dimension for dimension in at if at[dimension] <= keep * total) for keep in KEEP]
    models_folded = {method: folded(opened_adapter(folder), method).model for method in METHODS}
    before = {method: perplexities(model, known["ids"]) for method, model in models_folded.items()}
    for method, seed in product(METHODS, SEEDS):
        drawn = torch.split(torch.load(ids / f"calib-{name}-{seed}.pt"), BATCH)
        batches = [{"input_ids": each, "attention_mask": torch.ones_like(each)} for each in drawn]
        for keep, dimension in zip(KEEP, sizes, strict=True):
            forward = pass_seconds(original.model, batches)
            made, seconds = sliced(folder, method, batches, dimension)
            left = block_weights(made)
            if left != at[dimension]:
                sys.exit(f"{name}: {left} weights at {dimension}, foreseen {at[dimension]}")
            row = {"model": name, "method": method, "keep": keep, "share": left / total, "seed": seed}
            row |= perplexities(made.model, known["ids"]) | {"dense": dense, "folded": before[method]}
            yield row | {"dimension": dimension, "seconds": seconds, "forward_passes": seconds / forward}


def run(checkout: Path, models: Path, ids: Path, output: Path) -> None:
    sys.path.insert(0, str(checkout / "src"))
    import transformers

    commit = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True).strip()
    protocol = {
        "code": "github.com/microsoft/TransformerCompression",
        "calibration": "English Wikipedia of 2014, part AE, titles in WikiText left out, for both models",
        "samples": f"{SAMPLES} windows of {SEQ_LEN} tokens, seeds {SEEDS}: the windows that statprune draws",
        "test": f"non-overlapping windows of {SEQ_LEN} tokens, the first {TOKENS} tokens of each text",
        "share": "all weights in the blocks, residual matrices included, of the dense projections",
        "dtype": "float32, rotations in float64; final orientation random",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "threads": torch.get_num_threads(),
    }
    found: dict[str, list[dict[str, Any]]] = {"rows": [], "embeddings_kept": []}
    for name in MODELS:
        for row in measure(name, models, ids):
            row["commit"] = commit
            found["rows" if row["method"] == "slicegpt" else "embeddings_kept"].append(row)
            print(row, flush=True)
            output.write_text(json.dumps({"protocol": protocol, **found}, indent=1) + "\n")


if __name__ == "__main__":
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--prepare", action="store_true", help="write MODELS and IDS (statprune's environment)")
    step.add_argument("--slicegpt", type=Path, metavar="CHECKOUT", help="slice and measure (SliceGPT's)")
    parser.add_argument("--models", type=Path, required=True, help="folder of the prepared models")
    parser.add_argument("--ids", type=Path, required=True, help="folder of the calibration and test ids")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    if given.prepare:
        prepare(given.models, given.ids)
    else:
        run(given.slicegpt, given.models, given.ids, given.output)
