"""A folder -> one GGUF file for llama.cpp, read back before it gets its name."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from statprune.checkpoint.aside import aside
from statprune.checkpoint.load import Loaded, load, require_finite
from statprune.checkpoint.skeleton import skeleton
from statprune.checkpoint.verify import ADVICE
from statprune.errors import ModelError, VerificationError
from statprune.export.gguf_config import write_config
from statprune.export.gguf_runtime import run, runtime_version
from statprune.export.gguf_tensors import Planned, dtype_of, notes_on_rows, planned_tensors
from statprune.export.gguf_vocabulary import PROBE, Vocabulary, vocabulary_of
from statprune.export.gguf_widths import FileWidths, widths_of
from statprune.export.target import require_library

_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
_ALLOWED = {"f32": 1e-4, "f16": 0.02, "bf16": 0.05, "q8_0": 0.3}
"""Of the largest logit: llama.cpp also rounds what matrices are multiplied by. Wrong files are off by all."""
_ALLOWED_WITH_GELU = 0.02
"""At least: llama.cpp looks gelu up in a table of f16."""
_PROMPT = 24
"""Tokens on which logits are compared."""


@dataclass(frozen=True)
class GgufFile:
    """What was written, and how it compares."""

    path: str
    architecture: str
    dtype: str
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    neurons: tuple[int, ...]
    tokenizer: str | None
    bytes: int
    runtime: str | None
    """Version of llama-cpp-python, which computed with the file; None where it is not installed."""
    difference: float | None
    """The largest difference of a logit between llama.cpp and transformers."""
    largest_logit: float | None
    agreement: float | None
    """The share of positions with the same likeliest token."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        size = f"{self.bytes:,} bytes"
        vocabulary = f"tokenizer {self.tokenizer}" if self.tokenizer else "no tokenizer"
        first = f"{self.path}: architecture {self.architecture}, {self.dtype}, {vocabulary}, {size}"
        if self.runtime is None:
            checked = (
                "read back, every tensor equal bit for bit; llama.cpp itself was not there to compute with "
                "it (pip install 'statprune[llama-cpp]')"
            )
        else:
            checked = (
                f"llama.cpp (llama-cpp-python {self.runtime}) against transformers: logits differ by at "
                f"most {self.difference:.2g}, where they reach {self.largest_logit:.3g}; likeliest token the "
                f"same at {self.agreement:.0%} of positions"
            )
        return [first, checked, *self.notes]


def export_gguf(
    source: str | Path, out: str | Path | None = None, *, dtype: str = "auto", tokenizer: bool = True
) -> GgufFile:
    """Write the model in a folder, pruned or not, as one file for llama.cpp, and try it there.

    Args:
        source: a model's folder, or its name on the hub.
        out: a file that does not exist; by default the source's name with .gguf, in the current folder.
        dtype: of matrices: f32, f16, bf16, q8_0, or auto for the model's own.
        tokenizer: whether the file holds the tokenizer.

    Raises:
        ModelError: llama.cpp cannot say this model or its tokenizer.
        InputError: something given cannot be used.
        VerificationError: the file does not hold the model, or llama.cpp computes something else with it.
    """
    require_library("gguf", "gguf")
    target = Path(f"{Path(source).name}.gguf") if out is None else Path(out)
    with aside(target) as partial:
        widths_of(skeleton(source))
        loaded = load(source)
        model = loaded.model
        require_finite(model)
        widths, chosen = widths_of(model), dtype_of(model, dtype)
        vocabulary = _vocabulary(loaded.tokenizer, model) if tokenizer else None
        planned = planned_tensors(model, widths, chosen)
        _write(partial, model, widths, vocabulary, planned, chosen)
        _compare_bits(partial, planned)
        rounded_experts = widths.stack.experts is not None and chosen != "f32"
        compared = _compare_outputs(
            partial, loaded, vocabulary, _allowed(chosen, widths), some_may_differ=rounded_experts
        )
        size = partial.stat().st_size
        notes = (*widths.notes, *notes_on_rows(planned), *(vocabulary.notes if vocabulary else ()))
    return GgufFile(
        path=str(target),
        architecture=widths.architecture.name,
        dtype=chosen,
        heads=widths.heads,
        kv_heads=widths.kv_heads,
        neurons=widths.neurons,
        tokenizer=f"{vocabulary.model}/{vocabulary.pre}" if vocabulary else None,
        bytes=size,
        notes=notes,
        **compared,
    )


def _vocabulary(tokenizer: Any, model: PreTrainedModel) -> Vocabulary:
    if tokenizer is None:
        raise ModelError(
            "the folder holds no tokenizer, and a GGUF file carries it. Add it, or give tokenizer=False "
            "(--no-tokenizer)."
        )
    return vocabulary_of(tokenizer, model)


def _write(
    path: Path,
    model: PreTrainedModel,
    widths: FileWidths,
    vocabulary: Vocabulary | None,
    planned: list[Planned],
    dtype: str,
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter  # noqa: PLC0415 - an optional library

    writer: Any = GGUFWriter(path, widths.architecture.name)
    write_config(writer, model, widths)
    writer.add_file_type(_FILE_TYPES[dtype])
    if dtype == "q8_0":
        writer.add_quantization_version(2)
    _write_vocabulary(writer, vocabulary, model)
    for each in planned:
        rows = each.encoded()
        kind = GGMLQuantizationType[each.dtype.upper()]
        writer.add_tensor_info(each.name, rows.shape, rows.dtype, rows.nbytes, raw_dtype=kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for each in planned:
        writer.write_tensor_data(each.encoded())
    writer.close()


def _write_vocabulary(writer: Any, vocabulary: Vocabulary | None, model: PreTrainedModel) -> None:
    if vocabulary is None:
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    for name, number in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.add_space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _compare_bits(path: Path, planned: list[Planned]) -> None:
    """Raise VerificationError unless the file holds every planned tensor, bit for bit, and no other."""
    from gguf import GGUFReader  # noqa: PLC0415 - an optional library

    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for each in planned:
        read, own = found.pop(each.name, None), each.encoded()
        if (
            read is None
            or read.tensor_type.name != each.dtype.upper()
            or not np.array_equal(_bytes(read.data), _bytes(own))
        ):
            raise VerificationError(f"{each.name} is not what was written when it is read back. {ADVICE}")
    if found:
        raise VerificationError(f"{', '.join(found)} are in the file and were never written. {ADVICE}")


def _bytes(rows: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)


def _allowed(dtype: str, widths: FileWidths) -> float:
    gelu = "gelu" in widths.family.activation[1]
    return max(_ALLOWED[dtype], _ALLOWED_WITH_GELU) if gelu else _ALLOWED[dtype]


@torch.no_grad()
def _compare_outputs(
    path: Path, loaded: Loaded, vocabulary: Vocabulary | None, allowed: float, *, some_may_differ: bool
) -> Mapping[str, Any]:
    """What llama.cpp computes beside what transformers does, in float32; nothing if it is not there.

    Rounding lets a token go to another expert, where two are as good as tied; so with experts half of the
    positions may differ by more than is `allowed`.
    """
    runtime = runtime_version()
    if runtime is None:
        return {"runtime": None, "difference": None, "largest_logit": None, "agreement": None}
    model: Any = loaded.model
    tokenizer: Any = loaded.tokenizer
    words = model.get_input_embeddings().weight.shape[0]
    text = PROBE if vocabulary else ""
    expected = tokenizer(text)["input_ids"] if vocabulary else []
    ids = expected[:_PROMPT] or [(7 * place + 3) % words for place in range(_PROMPT)]
    found = run(path, ids, text=text)
    if found["tokens"].tolist() != expected:
        raise VerificationError(
            f"llama.cpp splits a text into {found['tokens'].tolist()[:40]}, the tokenizer into "
            f"{expected[:40]}. Export without it (--no-tokenizer), and please report this tokenizer."
        )
    ours = model.float()(torch.tensor([ids], device=model.device)).logits[0].cpu().double().numpy()
    gaps, largest = np.abs(found["logits"] - ours).max(-1), np.abs(ours).max().item()
    gap = gaps.max().item()
    judged = np.median(gaps).item() if some_may_differ else gap
    # Written so that a NaN fails.
    if not judged <= allowed * largest:
        raise VerificationError(
            f"logits of llama.cpp differ by {judged:.3g} from those of transformers, where they reach "
            f"{largest:.3g} and {allowed * largest:.3g} is allowed. {ADVICE}"
        )
    agreement = float((found["logits"].argmax(-1) == ours.argmax(-1)).mean())
    return {"runtime": runtime, "difference": gap, "largest_logit": largest, "agreement": agreement}
