"""What somebody may have done to a folder before it is given to the command line."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Deed = Callable[[Path], object]
"""Changes the files below a folder, where `llama`, `bert`, `measured` and `made` lie."""

COMPRESS = "compress llama --data text.txt --samples 12 --keep 0.5 --out out"
PLAN = "compress llama --data text.txt --samples 12 --plan plan.json --out out"
FROM = "compress --from measured --keep 0.5 --out out"
BERT = "compress bert --data text.txt --samples 12 --keep 0.5 --out out"
ENTRY = "inspect llama --entry entry.toml"
RECORD = "evaluate llama --data text.txt --record made"
SITE = "blocks.0.feed_forward"
JSON = "measured/measurement.json"
DEEP = "[" * 200_000
Row = tuple[Deed, str, tuple[str, ...]]
"""What is done, the command, and what its line must hold: of `a | b` one."""

WEIGHTS = "llama/model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write(name: str, content: Any) -> Deed:
    """A file of these bytes or this text, or of this as JSON."""
    data = content if isinstance(content, bytes | str) else json.dumps(content)

    def deed(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return deed


def changed(name: str, *keys: str, to: Any) -> Deed:
    """A JSON file with another value at the end of `keys`."""

    def deed(root: Path) -> None:
        content = inner = json.loads((root / name).read_text())
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to
        (root / name).write_text(json.dumps(content))

    return deed


def config(**values: Any) -> Deed:
    """The model's config with other values."""

    def deed(root: Path) -> None:
        path = root / "llama/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return deed


def header(change: Callable[[dict[str, Any]], object], length: int | None = None) -> Deed:
    """Another header over the same data; said to be of another length."""

    def deed(root: Path) -> None:
        content = (root / WEIGHTS).read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        said = json.loads(content[8 : 8 + size])
        change(said)
        text = json.dumps(said).encode()
        begin = struct.pack("<Q", len(text) if length is None else length)
        (root / WEIGHTS).write_bytes(begin + text + content[8 + size :])

    return deed


def tensors(change: Callable[[dict[str, Tensor]], object], name: str = WEIGHTS) -> Deed:
    """A file of other tensors."""

    def deed(root: Path) -> None:
        found = load_file(root / name)
        change(found)
        (root / name).unlink()
        save_file(found, root / name, metadata={"format": "pt"})

    return deed


def cast(dtype: torch.dtype, *names: str) -> Deed:
    """The weights, or those of these names, as another dtype."""
    return tensors(
        lambda found: found.update({name: found[name].to(dtype) for name in (names or list(found))})
    )


def each(change: Callable[[Tensor], Tensor]) -> Deed:
    """Samples of the measurement, each another one, as its file says now."""

    def deed(root: Path) -> None:
        tensors(
            lambda found: found.update({name: change(value) for name, value in found.items()}),
            "measured/samples.safetensors",
        )(root)
        forget_digest(root)

    return deed


def forget_digest(root: Path) -> None:
    """As a measurement of an earlier version, which does not say which samples were written."""
    path = root / "measured/measurement.json"
    content = json.loads(path.read_text())
    content.pop("samples", None)
    path.write_text(json.dumps(content))


def sharded(change: Callable[[dict[str, Any], Path], Any]) -> Deed:
    """The weights in two shards, and another index; `change` returns the index, or changes it."""

    def deed(root: Path) -> None:
        folder, found = root / "llama", load_file(root / WEIGHTS)
        (root / WEIGHTS).unlink()
        names = sorted(found)
        half = len(names) // 2
        for shard, part in zip(SHARDS, (names[:half], names[half:]), strict=True):
            save_file({name: found[name] for name in part}, folder / shard, metadata={"format": "pt"})
        where = {name: SHARDS[place >= half] for place, name in enumerate(names)}
        index = {"metadata": {"total_size": 1}, "weight_map": where}
        content = change(index, folder)
        text = content if isinstance(content, str) else json.dumps(content or index)
        (folder / "model.safetensors.index.json").write_text(text)

    return deed


def shard_at(name: Any) -> Deed:
    """An index that has the first shard somewhere else."""

    def change(index: dict[str, Any], folder: Path) -> None:
        shards = index["weight_map"]
        elsewhere = str(folder.parent / "first.safetensors") if name == "absolute" else name
        os.rename(folder / SHARDS[0], folder.parent / "first.safetensors")
        index["weight_map"] = {
            key: elsewhere if shard == SHARDS[0] else shard for key, shard in shards.items()
        }

    return sharded(change)


def linked(name: str, target: str) -> Deed:
    """A link in the place of a file."""

    def deed(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)

    return deed


def moved_out(name: str) -> Deed:
    """A file moved out of the model's folder, and a link to it."""

    def deed(root: Path) -> None:
        os.rename(root / name, root / "moved")
        (root / name).symlink_to("../moved")

    return deed


def turned(name: str, place: int) -> Deed:
    """One bit of a file turned."""

    def deed(root: Path) -> None:
        content = bytearray((root / name).read_bytes())
        content[place] ^= 0x40
        (root / name).write_bytes(bytes(content))

    return deed


def modules(*pairs: tuple[str, str]) -> Deed:
    """A folder of sentence-transformers with these modules: type and place."""
    return write("bert/modules.json", [{"type": kind, "path": place} for kind, place in pairs])


def folder_at(name: str) -> Deed:
    """A folder in the place of a file."""

    def deed(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).mkdir()

    return deed


def state(root: Path) -> dict[str, tuple[int, str]]:
    """Every file, folder and link below, when it was changed, and where a link leads."""
    return {
        str(path): (path.lstat().st_mtime_ns, os.readlink(path) if path.is_symlink() else "")
        for path in sorted(root.rglob("*"))
    }
