"""A folder -> an ONNX folder that needs ONNX Runtime and a tokenizer alone, tried before it has a name."""

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.checkpoint.aside import aside
from statprune.checkpoint.load import Loaded, load, require_finite
from statprune.checkpoint.verify import ADVICE
from statprune.errors import ModelError, VerificationError
from statprune.export.onnx_experts import each_in_turn
from statprune.export.onnx_runtime import compare
from statprune.export.target import require_library

FILE = "model.onnx"
ALLOWED = 1e-4
"""Of the largest output: both compute in float32, in another order."""

_LARGE = 2**31 - 2**20
"""Bytes of weights above which they lie in a file of their own: protobuf's limit."""


@dataclass(frozen=True)
class OnnxFolder:
    """What was written, and how it compares."""

    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cache: bool
    bytes: int
    runtime: str | None
    """Version of ONNX Runtime, which computed with it; None where it is not installed."""
    difference: float | None
    """The largest difference of an output between ONNX Runtime and transformers."""
    largest: float | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        kind = "with a key-value cache" if self.cache else "without a cache"
        first = f"{self.path}/{FILE}: {kind}, {self.bytes:,} bytes; reads {', '.join(self.inputs[:4])}"
        first += " ..." if len(self.inputs) > 4 else ""
        if self.runtime is None:
            checked = "ONNX Runtime was not there to compute with it (pip install 'statprune[onnx]')"
        else:
            checked = (
                f"ONNX Runtime {self.runtime} against transformers, at another batch and length: outputs "
                f"differ by at most {self.difference:.2g}, where they reach {self.largest:.3g}"
            )
        return [first, checked, *self.notes]


def export_onnx(source: str | Path, out: str | Path | None = None, *, cache: bool = True) -> OnnxFolder:
    """Write the model in a folder, pruned or not, for ONNX Runtime: any batch, any length, in float32.

    Args:
        source: a model's folder, or its name on the hub.
        out: a folder that does not exist; by default the source's name with -onnx, in the current folder.
        cache: whether a decoder takes and returns keys and values, `past_key_values.N.key` and
            `present.N.key`, each block's with its own number of heads. Other models have none.

    Raises:
        ModelError: torch cannot export this model.
        InputError: something given cannot be used.
        VerificationError: ONNX Runtime computes something else.
    """
    for library in ("onnx", "onnxscript"):
        require_library(library, "onnx")
    target = Path(f"{Path(source).name}-onnx") if out is None else Path(out)
    with aside(target) as partial:
        loaded = load(source)
        require_finite(loaded.model)
        notes = (
            () if loaded.model.dtype == torch.float32 else (f"weights of {loaded.model.dtype} in float32",)
        )
        model = loaded.model.float()
        anatomy = anatomy_of(model)
        graph = Graph.of(model, anatomy, cache=cache and anatomy.entry.kind == "decoder")
        partial.mkdir()
        with each_in_turn(anatomy):
            _write(graph, partial)
        _companions(loaded, partial)
        size = sum(path.stat().st_size for path in partial.glob(f"{FILE}*"))
        found = _compared(graph, partial)
    return OnnxFolder(
        str(target), tuple(graph.inputs), tuple(graph.outputs), graph.cache, size, notes=notes, **found
    )


@dataclass(frozen=True, eq=False)
class Graph:
    """What is exported: a module of tensors, its inputs and outputs by name, and which lengths may vary."""

    module: nn.Module
    inputs: list[str]
    outputs: list[str]
    cache: bool
    heads: list[int]
    """Key-value heads of every block, where there is a cache."""
    head_dim: int

    @classmethod
    def of(cls, model: PreTrainedModel, anatomy: Anatomy, *, cache: bool) -> "Graph":
        """The graph of `model`."""
        accepted = inspect.signature(model.forward).parameters
        heads = [site.units for site in anatomy.sites if site.kind == "attention"] if cache else []
        head_dim = next((site.head_dim for site in anatomy.sites if site.kind == "attention"), 0)
        if len(heads) != (len(anatomy.blocks) if cache else 0):
            raise ModelError(
                "a block without attention has no keys and values. Give cache=False (--no-cache)."
            )
        names = [model.main_input_name]
        if model.main_input_name == "input_ids":
            names.append("attention_mask")
        for name in ("position_ids",) if cache else ("token_type_ids", "decoder_input_ids"):
            wanted = name != "decoder_input_ids" or model.config.is_encoder_decoder
            if name in accepted and wanted and (name != "token_type_ids" or _has_types(model)):
                names.append(name)
        if not cache:
            plain = _Plain(model)
            feed = cls(plain, names, [], False, [], head_dim).feed(2, 4, past=0, seed=0)
            return cls(plain, names, plain.names(feed), False, [], head_dim)
        halves = [f"{number}.{half}" for number in range(len(heads)) for half in ("key", "value")]
        inputs = [*names, *(f"past_key_values.{each}" for each in halves)]
        presents = [f"present.{each}" for each in halves]
        return cls(_Cached(model), inputs, ["logits", *presents], True, heads, head_dim)

    def feed(self, rows: int, length: int, *, past: int, seed: int) -> dict[str, Any]:
        """Random inputs of the module, by its own argument names; `past` tokens lie in the cache."""
        generator = torch.Generator().manual_seed(seed)
        model: PreTrainedModel = self.module.model
        config = model.config
        ids = torch.randint(0, getattr(config, "vocab_size", 2), (rows, length), generator=generator)
        content = {
            "input_ids": ids,
            "attention_mask": torch.ones(rows, past + length, dtype=torch.int64),
            "position_ids": torch.arange(past, past + length)[None].expand(rows, -1).contiguous(),
            "token_type_ids": torch.zeros_like(ids),
            "decoder_input_ids": ids.flip(1).contiguous(),
        }
        if "pixel_values" in self.inputs:
            size = config.image_size
            shape = (config.num_channels, *((size, size) if isinstance(size, int) else size))
            content["pixel_values"] = torch.randn((rows, *shape), generator=generator)
        if "input_features" in self.inputs:
            shape = (config.num_mel_bins, 2 * config.max_source_positions)
            content["input_features"] = torch.randn((rows, *shape), generator=generator)
        fed: dict[str, Any] = {name: content[name] for name in self.inputs if name in content}
        if self.cache:
            fed["past"] = [
                tuple(torch.randn(rows, heads, past, self.head_dim, generator=generator) for _ in range(2))
                for heads in self.heads
            ]
        return fed

    def lengths_that_vary(self) -> dict[str, Any]:
        """For every argument of the module: which of its dimensions have no fixed length."""
        free = torch.export.Dim.DYNAMIC
        texts = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "decoder_input_ids")
        found: dict[str, Any] = {
            name: {0: free, 1: free} if name in texts else {0: free}
            for name in self.inputs
            if not name.startswith("past_key_values.")
        }
        if self.cache:
            found["past"] = [({0: free, 2: free}, {0: free, 2: free}) for _ in self.heads]
        return found


class _Plain(nn.Module):
    """The model's tensors by themselves, in order."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        takes_cache = "use_cache" in inspect.signature(model.forward).parameters
        self.options = {"use_cache": False} if takes_cache else {}

    def names(self, feed: Mapping[str, Tensor]) -> list[str]:
        """What it returns, by name."""
        with torch.no_grad():
            return list(self._run(feed))

    def _run(self, feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        output = self.model(**feed, **self.options, return_dict=True)
        return {
            name: value
            for name, value in output.items()
            if isinstance(value, Tensor) and not name.startswith("encoder_")
        }

    def forward(self, feed: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(self._run(feed).values())


class _Cached(nn.Module):
    """A decoder that takes and returns its keys and values as tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, feed: dict[str, Tensor], past: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        cache = DynamicCache()
        for number, (keys, values) in enumerate(past):
            cache.update(keys, values, number)
        output = self.model(**feed, past_key_values=cache, use_cache=True, return_dict=True)
        halves = [half for layer in output.past_key_values.layers for half in (layer.keys, layer.values)]
        return (output.logits, *halves)


def _has_types(model: PreTrainedModel) -> bool:
    return int(getattr(model.config, "type_vocab_size", 0) or 0) > 1


def _write(graph: Graph, folder: Path) -> None:
    feed = graph.feed(2, 4, past=3 if graph.cache else 0, seed=0)
    module = graph.module.eval()
    varying = graph.lengths_that_vary()
    past = {"past": feed.pop("past")} if graph.cache else {}
    shapes = {"past": varying.pop("past")} if graph.cache else {}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (),
                kwargs={"feed": feed, **past},  # a dict at the end of its arguments would be taken apart
                dynamo=True,
                dynamic_shapes={"feed": varying, **shapes},
                input_names=graph.inputs,
                output_names=graph.outputs,
                verbose=False,
            )
    except Exception as error:  # torch raises whatever it likes
        cause = error.__cause__ or error
        first = " ".join(str(cause).split())[:300]
        raise ModelError(
            f"torch {torch.__version__} cannot export this model to ONNX: {first}. "
            f"{'Without a cache (--no-cache) it may.' if graph.cache else ''}".rstrip()
        ) from error
    if program is None:
        raise ModelError("torch exported nothing. Update torch.")
    for node in program.model.graph:
        node.metadata_props.clear()  # tracebacks, with the paths of files on this machine
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    program.save(folder / FILE, external_data=weights > _LARGE)


def _companions(loaded: Loaded, folder: Path) -> None:
    loaded.model.config.to_json_file(folder / "config.json")
    for companion in (loaded.tokenizer, loaded.processor):
        if companion is not None:
            companion.save_pretrained(folder)
    generation = getattr(loaded.model, "generation_config", None)
    if generation is not None:
        generation.to_json_file(folder / "generation_config.json")


def _compared(graph: Graph, folder: Path) -> dict[str, Any]:
    if find_spec("onnxruntime") is None:
        return {"runtime": None, "difference": None, "largest": None}
    difference, largest = compare(graph, folder / FILE)
    # Written so that a NaN fails.
    if not difference <= ALLOWED * largest:
        raise VerificationError(
            f"ONNX Runtime differs from transformers by {difference:.3g}, where outputs reach {largest:.3g} "
            f"and {ALLOWED * largest:.3g} is allowed. {ADVICE}"
        )
    return {"runtime": version("onnxruntime"), "difference": difference, "largest": largest}
