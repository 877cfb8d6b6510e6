"""How the folder is opened: every way that works for it, and no other."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statprune.anatomy.lookup import entry_for, is_own
from statprune.card.markdown import block, code, escaped
from statprune.card.removed import widths_by_part
from statprune.checkpoint.classes import auto_name
from statprune.checkpoint.load import PROCESSOR, TOKENIZER
from statprune.checkpoint.sentence_folder import MODULES_FILE, place_of_transformer
from statprune.checkpoint.skeleton import skeleton
from statprune.errors import ModelError
from statprune.json_file import json_of

FOLDER = 'folder = "."  # this folder, or the name that it has on the hub'

# By their source, of uniform widths; docs/serving.md has the table.
_VLLM = ("llama", "mistral", "mixtral", "phi3", "qwen3", "qwen3_moe", "gemma2", "gemma3_text")
_VLLM_AS_WRITTEN = ("qwen2", "qwen2_moe")
_NOT_VLLM = ("gpt_neo",)


@dataclass(frozen=True)
class Opening:
    """What decides how a folder is opened.

    Attributes:
        folder: where it lies now.
        architecture: the class in its config.json.
        stock: whether its libraries open it without code of this package.
        reason: why, in a sentence.
        modules: whether it is one of sentence-transformers.
        own: whether an entry of the user's own describes the model.
        model_type: in its config.json.
    """

    folder: Path
    architecture: str
    stock: bool
    reason: str
    modules: bool
    own: bool
    model_type: str

    @property
    def causal(self) -> bool:
        """Whether it predicts the next token."""
        return self.architecture.endswith(("ForCausalLM", "LMHeadModel"))

    @staticmethod
    def of(folder: Path, *, stock: bool, reason: str) -> "Opening":
        """What the files of a folder, which is whole, say."""
        config = json_of(folder / place_of_transformer(folder) / "config.json", unique=False)
        entry = entry_for(config["model_type"])
        return Opening(
            folder,
            config["architectures"][0],
            stock,
            reason,
            (folder / MODULES_FILE).exists(),
            entry is not None and is_own(entry),
            config["model_type"],
        )


def how_to_load(opening: Opening) -> str:
    """The section: a block of Python for every way."""
    library = "sentence-transformers" if opening.modules else "transformers"
    if opening.stock:
        told = f"{library} opens it as it is: {escaped(opening.reason)}"
        return f"{told}\n\n{_block(opening)}"
    told = (
        f"{library} alone does not open it: {escaped(opening.reason)} Without one of these ways it fails, "
        f"and says so."
    )
    trusting = (
        f"Or without statprune, by the code in {code('modeling_statprune.py')} of this folder:\n\n"
        f"{_block(opening, trusting=True)}"
    )
    if opening.own:
        trusting = trusting.replace("Or without", "Without", 1)
        return f"{told}\n\n{trusting}"
    importing = f"With statprune installed ({code('pip install statprune')}):\n\n"
    return f"{told}\n\n{importing}{_block(opening, importing=True)}\n\n{trusting}"


def _block(opening: Opening, *, importing: bool = False, trusting: bool = False) -> str:
    more = ", trust_remote_code=True" if trusting else ""
    first = ["import statprune  # from then on transformers knows the widths of this folder"]
    lines = first if importing else []
    if opening.modules:
        lines = [*lines, "from sentence_transformers import SentenceTransformer", "", FOLDER]
        return block("\n".join([*lines, f"model = SentenceTransformer(folder{more})"]), "python")
    name = auto_name(opening.architecture)
    companions = _companions(opening.folder)
    names = sorted({name, *companions.values()})
    opened = [f"model = {name}.from_pretrained(folder{more})"]
    opened += [f"{what} = {kind}.from_pretrained(folder)" for what, kind in companions.items()]
    return block(
        "\n".join([*lines, f"from transformers import {', '.join(names)}", "", FOLDER, *opened]), "python"
    )


def _companions(folder: Path) -> dict[str, str]:
    if any((folder / name).exists() for name in PROCESSOR):
        return {"processor": "AutoProcessor"}
    if any((folder / name).exists() for name in TOKENIZER):
        return {"tokenizer": "AutoTokenizer"}
    return {}


def other_programs(opening: Opening, record: Mapping[str, Any], tokenizer: Any) -> str:
    """The section on programs that take the folder, or a file made of it; "" where there is none."""
    found = []
    if not opening.modules and not opening.own:
        found += _vllm(opening, record)
        if opening.causal and _fits_gguf(opening.folder, tokenizer):
            found.append(_export("llama.cpp, by a file", "gguf", "model.gguf"))
        found.append(_export("ONNX Runtime, by a folder", "onnx", "model-onnx"))
    return "\n\n".join(found)


def _export(told: str, target: str, out: str) -> str:
    installing = code(f"pip install 'statprune[{target}]'")
    return f"{told}: {installing} and\n\n" + block(f"statprune export . --to {target} --out {out}", "sh")


def _vllm(opening: Opening, record: Mapping[str, Any]) -> list[str]:
    """Of decoders alone; the engine was never run."""
    if not opening.causal or opening.model_type in _NOT_VLLM:
        return []
    heads = widths_by_part(record).get("attention", {})
    whole = all(dense == kept for dense, kept in heads.values())
    if not opening.stock:
        experts = widths_by_part(record).get("experts", {})
        if len(set(experts.values())) > 1:
            return []
        command = "vllm serve . --model-impl transformers --trust-remote-code"
    elif opening.model_type in _VLLM or (opening.model_type in _VLLM_AS_WRITTEN and whole):
        command = "vllm serve ."
    elif opening.model_type in _VLLM_AS_WRITTEN:
        command = "vllm serve . --model-impl transformers"
    else:
        return []
    return [
        f"vLLM 0.33, judged by its source; the engine was not run with this folder:\n\n{block(command, 'sh')}"
    ]


def _fits_gguf(folder: Path, tokenizer: Any) -> bool:
    """Whether llama.cpp has words for the model and for its tokenizer; reads no weights."""
    from statprune.export.gguf_vocabulary import vocabulary_of  # noqa: PLC0415 - most folders do without
    from statprune.export.gguf_widths import widths_of  # noqa: PLC0415

    if tokenizer is None:
        return False
    try:
        model = skeleton(folder)
        widths_of(model)
        vocabulary_of(tokenizer, model)
    except ModelError:
        return False
    return True
