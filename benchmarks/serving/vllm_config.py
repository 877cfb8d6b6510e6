"""What vLLM's own config converter reads in per-layer folders, and what its transformers backend would build.

    pip download vllm==0.33.0 --no-deps && unzip vllm-0.33.0-*.whl 'vllm/*.py' -d UNPACKED
    python -m benchmarks.serving.vllm_config UNPACKED      # or the site-packages where vLLM is installed

Neither a GPU nor vLLM's dependencies are needed: its packages are entered past their `__init__`. The engine
itself is not run.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from transformers import AttentionInterface, AutoConfig, AutoModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from benchmarks import protocol
from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.save import save
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, uneven_cut

ENTERED = ("vllm", "vllm.config", "vllm.transformers_utils", "vllm.utils")
COUNTING = "counting"


def converter(root: Path) -> tuple[Any, str]:
    """The converter class of vLLM, and its version."""
    for name in ENTERED:
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[name] = package
    if not (root / "vllm").is_dir():
        sys.exit(f"{root} holds no folder vllm. Give the folder the wheel was unpacked in.")
    from vllm.transformers_utils import model_arch_config_convertor as module  # noqa: PLC0415

    found = [*root.glob("vllm-*.dist-info/METADATA")]
    version = re.search(r"^Version: (.*)$", found[0].read_text(), re.MULTILINE) if found else None
    return module.ModelArchConfigConvertorBase, version.group(1) if version else "unknown"


def geometry(convertor: Any, folder: Path) -> list[tuple[int, int, int]]:
    """(heads, key-value heads, head size) of every layer, as vLLM allocates them."""
    config = AutoConfig.from_pretrained(folder)
    made = convertor(config, config.get_text_config()).convert()
    layers = [made[index] for index in range(made.total_num_hidden_layers)]
    return [(each.total_num_attention_heads, each.total_num_kv_heads, each.head_size) for each in layers]


def dispatched(folder: Path, batch: dict[str, Any]) -> list[tuple[int, int, int]]:
    """The same of every call of the attention interface, of the model that vLLM would build."""
    calls: list[tuple[int, int, int]] = []

    def counting(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
        calls.append((query.shape[1], key.shape[1], query.shape[3]))
        rest.pop("softcap", None)  # vLLM's attention has it; only shapes are of interest here
        return sdpa_attention_forward(module, query, key, value, mask, **rest)

    AttentionInterface.register(COUNTING, counting)
    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation = COUNTING
    model = AutoModel.from_config(config, trust_remote_code=True).eval()
    with torch.no_grad():
        model(**batch)
    return calls


def told(shapes: list[tuple[int, int, int]]) -> str:
    return " ".join("/".join(map(str, shape)) for shape in shapes) or "none"


def row(convertor: Any, model_type: str, root: Path) -> list[str]:
    model = uneven_cut(tiny_model(model_type))
    anatomy = anatomy_of(model)
    if len(anatomy.runs) > 1:
        return [model_type, "", "", "", "vLLM's backend serves no encoder with a decoder"]
    batch = tiny_batch(model)
    saved = save(model, anatomy, root / model_type, source=None, tokenizer=None, record={})
    true = [
        (site.units * site.group, site.units, site.head_dim)
        for site in anatomy.sites
        if site.kind == "attention"
    ]
    read = geometry(convertor, saved.path)
    served = bool(type(model)._supports_attention_backend)
    calls = dispatched(saved.path, batch) if served else []
    fits = served and read == true == calls
    return [model_type, told(read), told(calls), *("yes" if each else "no" for each in (served, fits))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", type=Path, help="folder that holds the folder vllm")
    convertor, version = converter(parser.parse_args().path.absolute())
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row(convertor, model_type, Path(scratch)) for model_type in MODEL_TYPES]
    columns = ["model type", "vLLM reads", "attention called with", "backend", "fits"]
    protocol.write(
        "vllm-config",
        "vLLM: what it reads in per-layer folders",
        {
            "vllm": f"{version}, its ModelArchConfigConvertorBase(config).convert(); the engine was not run",
            "folders": "random models of 3 blocks, 4 heads of 8, cut to other widths in every block",
            "cells": "heads/key-value heads/head size of every block",
            "attention called with": "shapes at transformers' attention interface, of the model that "
            "AutoModel.from_config builds, as vLLM's transformers backend does",
            "backend": "the class says _supports_attention_backend",
            "fits": "all three, and both shapes are those of the pruned model",
        },
        protocol.table(columns, rows),
        [dict(zip(columns, each, strict=True)) for each in rows],
    )


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main()
