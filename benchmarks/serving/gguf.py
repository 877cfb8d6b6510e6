"""Pruned models as GGUF files: what llama.cpp computes with them, beside what transformers does.

    STATPRUNE_SHARED=... python -m benchmarks.serving.gguf

Needs `pip install 'statprune[llama-cpp]'`. Run as a module: as a script it would hide the library gguf.
"""

import argparse
import ctypes
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer

from benchmarks.protocol import articles, shared, table, write
from statprune import compress
from statprune.checkpoint.load import load
from statprune.demo import CALIBRATION
from statprune.export.gguf import export_gguf
from statprune.export.gguf_runtime import run

KEEP = 0.7
TOKENS = 256
APPENDED = 64
PROMPTS = {
    "stories260K": ("Once upon a time", "Lily and Tom went to the", "The dog was very"),
    "wiki-llama-7m": ("The river flows", "In 1987, he was", "The village is located in"),
}
MULTIPLES = (1, 32, 256)
QUANTISED = {"Q8_0": 7, "Q4_0": 2, "Q4_K_M": 15}
"""llama.cpp's numbers for them."""
RANDOM = ("mistral", "qwen2", "qwen3")


def random_model(model_type: str, folder: Path) -> None:
    """A random model with the words of wiki-llama-7m, in `folder`: architectures, not quality.

    It has rows to spare: transformers gives the tokenizer of a Qwen a few tokens of its own.
    """
    tokenizer = AutoTokenizer.from_pretrained(shared("models/wiki-llama-7m"))
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer) + 64,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=512,
        sliding_window=None,
        tie_word_embeddings=True,
        initializer_range=0.08,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def text_of(name: str) -> Any:
    if name == "stories260K":
        return str(CALIBRATION)
    return articles(shared("data/wikipedia/AE.jsonl.xz"), [], 400_000)


@torch.no_grad()
def compare(folder: Path, name: str, widths: str, scratch: Path) -> dict[str, Any]:
    """One row: the folder as f32 and as q8_0."""
    loaded = load(folder)
    loaded.model.generation_config.eos_token_id = None
    tokenizer, model = loaded.tokenizer, loaded.model.float()
    ids = tokenizer(shared("data/wikitext-2/wiki.test.raw").read_text(encoding="utf-8")[:4000])["input_ids"]
    ids = ids[:TOKENS]
    ours = model(torch.tensor([ids])).logits[0].numpy()
    row: dict[str, Any] = {"model": name, "widths": widths, "largest logit": float(np.abs(ours).max())}
    for dtype in ("f32", "q8_0"):
        path = scratch / f"{name}-{widths}-{dtype}.gguf".replace(" ", "-")
        written = export_gguf(folder, path, dtype=dtype)
        logits = run(path, ids)["logits"]
        row["architecture"] = written.architecture
        row[dtype] = {
            "difference": float(np.abs(logits - ours).max()),
            "agreement": float((logits.argmax(-1) == ours.argmax(-1)).mean()),
            "bytes": written.bytes,
            "texts equal": sum(
                same_text(path, model, tokenizer, prompt)
                for prompt in PROMPTS.get(name, PROMPTS["wiki-llama-7m"])
            ),
        }
    print(row, flush=True)
    return row


def same_text(path: Path, model: Any, tokenizer: Any, prompt: str) -> bool:
    """Whether llama.cpp splits and continues `prompt` as transformers does."""
    ids = tokenizer(prompt)["input_ids"]
    found = run(path, ids, text=prompt, generate=APPENDED)
    whole = model.generate(torch.tensor([ids]), max_new_tokens=APPENDED, do_sample=False, pad_token_id=0)
    return bool(
        found["tokens"].tolist() == ids and found["generated"].tolist() == whole[0, len(ids) :].tolist()
    )


@torch.no_grad()
def quantised(multiple: int, scratch: Path) -> list[dict[str, Any]]:
    """A per-layer wiki-llama-7m, quantised by llama.cpp itself: what `--multiple` is worth."""
    import llama_cpp  # noqa: PLC0415 - an optional library
    from gguf import GGUFReader  # noqa: PLC0415 - an optional library

    folder, dense = scratch / f"multiple-{multiple}", scratch / f"multiple-{multiple}.gguf"
    data = text_of("wiki-llama-7m")
    made = compress(
        shared("models/wiki-llama-7m"), keep=KEEP, data=data, samples=64, seq_len=128, multiple=multiple,
        out=folder,
    )  # fmt: skip
    export_gguf(folder, dense, dtype="f32")
    tokenizer, model = made.tokenizer, load(folder).model
    ids = tokenizer(shared("data/wikitext-2/wiki.test.raw").read_text(encoding="utf-8")[:4000])["input_ids"]
    ids = ids[:TOKENS]
    ours = model(torch.tensor([ids])).logits[0].numpy()
    rows = []
    for name, number in QUANTISED.items():
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.nthread = number, 1
        path = scratch / f"multiple-{multiple}-{name}.gguf"
        if llama_cpp.llama_model_quantize(str(dense).encode(), str(path).encode(), ctypes.byref(options)):
            raise SystemExit(f"llama.cpp does not quantise {dense} as {name}")
        logits = run(path, ids)["logits"]
        kinds = Counter(
            tensor.tensor_type.name for tensor in GGUFReader(path).tensors if "ffn_down" in tensor.name
        )
        rows.append(
            {
                "multiple": multiple,
                "type": name,
                "bytes": path.stat().st_size,
                "ffn_down": dict(kinds),
                "difference": float(np.abs(logits - ours).max()),
                "agreement": float((logits.argmax(-1) == ours.argmax(-1)).mean()),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        for name in (*PROMPTS, *RANDOM):
            source = shared(f"models/{name}") if name in PROMPTS else scratch / name
            if name in RANDOM:
                random_model(name, source)
            told = name if name in PROMPTS else f"random {name}"
            rows.append(compare(source, told, "dense", scratch))
            for widths in ("uniform", "per-layer"):
                folder = scratch / f"{name}-{widths}"
                compress(
                    source, keep=KEEP, widths=widths, data=text_of(name), samples=64, seq_len=128, out=folder
                )
                rows.append(compare(folder, told, widths, scratch))
        later = [row for multiple in MULTIPLES for row in quantised(multiple, scratch)]
    cells = [
        [
            row["model"],
            row["widths"],
            row["architecture"],
            f"{row['f32']['difference']:.1e}",
            f"{row['f32']['agreement']:.1%}",
            f"{row['f32']['texts equal']} of 3",
            f"{row['f32']['bytes'] / 1e6:.2f}",
            f"{row['q8_0']['difference']:.2f}",
            f"{row['q8_0']['agreement']:.1%}",
            f"{row['q8_0']['bytes'] / 1e6:.2f}",
            f"{row['largest logit']:.1f}",
        ]
        for row in rows
    ]
    write(
        "gguf",
        "GGUF: llama.cpp against transformers",
        {
            "widths": f"method refit, {KEEP:g} of the parameters of attention and MLP projections kept",
            "difference": f"largest of a logit, over {TOKENS} tokens of WikiText-2 one by one, cache f32",
            "agreement": "share of these positions with the same likeliest token",
            "texts equal": f"of three prompts, split and continued by the likeliest {APPENDED} tokens",
            "random": "6 blocks, hidden 256, embeddings tied: architectures, not quality",
            "MB": "10^6 bytes of the file, tokenizer included",
            "llama-cpp-python": version("llama_cpp_python"),
            "gguf": version("gguf"),
        },
        table(
            [
                "model", "widths", "written as", "f32: difference", "agreement", "texts equal", "MB",
                "q8_0: difference", "agreement", "MB", "largest logit",
            ],
            cells,
        )
        + "\n\nwiki-llama-7m per layer, quantised by llama.cpp's own quantiser from f32\n\n"
        + table(
            ["--multiple", "type", "MB", "difference", "agreement", "types of ffn_down, blocks"],
            [
                [
                    str(row["multiple"]),
                    row["type"],
                    f"{row['bytes'] / 1e6:.2f}",
                    f"{row['difference']:.2f}",
                    f"{row['agreement']:.1%}",
                    ", ".join(f"{kind} {count}" for kind, count in sorted(row["ffn_down"].items())),
                ]
                for row in later
            ],
        ),
        [*rows, *later],
    )  # fmt: skip


if __name__ == "__main__":
    main()
