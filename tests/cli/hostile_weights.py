"""Weights that are damaged, mislabelled, or elsewhere."""

import torch

from tests.cli import hostile as do
from tests.cli.hostile import BERT, COMPRESS, DEEP, Row

SAFETENSORS: dict[str, Row] = {
    "empty": (
        do.write(do.WEIGHTS, b""),
        COMPRESS,
        ("model.safetensors is damaged or cut short (0 bytes)", "Copy"),
    ),
    "length cut": (do.write(do.WEIGHTS, b"\1\0\0"), COMPRESS, ("cut short (3 bytes)", "Copy it again")),
    "header of 2^63 bytes": (do.header(dict.copy, 2**63), COMPRESS, ("is damaged", "Copy it again")),
    "header of 200 MB": (do.header(dict.copy, 200_000_000), COMPRESS, ("is damaged", "Copy it again")),
    "a bit of the header": (do.turned(do.WEIGHTS, 9), COMPRESS, ("is damaged", "Copy it again")),
    "overlapping": (
        do.header(lambda said: said[do.UP].update(data_offsets=said[do.NORM]["data_offsets"])),
        COMPRESS,
        ("is damaged", "Copy it again"),
    ),
    "beyond the end": (
        do.header(lambda said: said[do.UP].update(data_offsets=[10**9, 10**9 + 5120])),
        COMPRESS,
        ("is damaged", "Copy it again"),
    ),
    "transposed": (
        do.header(lambda said: said[do.UP].update(shape=[32, 40])),
        COMPRESS,
        ("the weights do not fit LlamaForCausalLM", "Check that config.json"),
    ),
    "2^124 values": (
        do.header(lambda said: said[do.UP].update(shape=[2**62, 2**62])),
        COMPRESS,
        ("is damaged",),
    ),
    "of no dtype": (do.header(lambda said: said[do.UP].update(dtype="F99")), COMPRESS, ("is damaged",)),
    "said to be integers": (
        do.header(lambda said: said[do.UP].update(dtype="I32")),
        COMPRESS,
        (f"{do.UP} is I32", "Convert them"),
    ),
    "another name": (
        do.header(lambda said: said.update({"model.layers.1.mlp.upp.weight": said.pop(do.UP)})),
        COMPRESS,
        (f"{do.UP} missing from the weights", "Complete the folder"),
    ),
    "float8": (do.cast(torch.float8_e4m3fn), COMPRESS, ("is F8_E4M3; weights are", "Convert them")),
    "float8 once": (do.cast(torch.float8_e4m3fn, do.UP), COMPRESS, (f"{do.UP} is F8_E4M3", "Convert them")),
    "float8, evaluated": (do.cast(torch.float8_e5m2), "evaluate llama --data text.txt", ("is F8_E5M2",)),
    "complex": (do.cast(torch.complex64, do.UP), COMPRESS, (f"{do.UP} is C64", "Convert them")),
    "int8": (do.cast(torch.int8), COMPRESS, ("is I8; weights are F64, F32, F16, BF16", "Convert them")),
    "booleans": (do.cast(torch.bool, do.UP), COMPRESS, (f"{do.UP} is BOOL",)),
    "a folder": (do.folder_at(do.WEIGHTS), COMPRESS, ("model.safetensors cannot be read: Is a directory",)),
}
SHARDS: dict[str, Row] = {
    "shard lost": (
        do.sharded(lambda _, folder: (folder / do.SHARDS[1]).unlink()),
        COMPRESS,
        ("the shard model-00002-of-00002.safetensors is missing", "Complete the folder"),
    ),
    "tensor in the other shard": (
        do.sharded(lambda index, _: index["weight_map"].update({do.NORM: do.SHARDS[0]})),
        COMPRESS,
        ("says that model-00001-of-00002.safetensors holds model.norm.weight, and it does not", "Copy"),
    ),
    "tensor nowhere": (
        do.sharded(lambda index, _: index["weight_map"].update({"ghost.weight": do.SHARDS[0]})),
        f"{COMPRESS} --offload",
        ("holds ghost.weight, and it does not",),
    ),
    "shard above": (
        do.shard_at("../first.safetensors"),
        COMPRESS,
        ("'../first.safetensors'", "no safetensors file of"),
    ),
    "shard by its path": (do.shard_at("absolute"), COMPRESS, ("first.safetensors'", "Restore it")),
    "shard above, offloaded": (do.shard_at("../first.safetensors"), f"{COMPRESS} --offload", ("Restore it",)),
    "shard is a file of the system": (do.shard_at("../../../../../etc/passwd"), COMPRESS, ("etc/passwd'",)),
    "shard is a pickle": (do.shard_at("pytorch_model.bin"), COMPRESS, ("'pytorch_model.bin'",)),
    "shard without a name": (do.shard_at(""), COMPRESS, ("names the shard ''", "Restore it")),
    "shard is a number": (do.shard_at(3), COMPRESS, ("names the shard 3",)),
    "shard is a list": (do.shard_at(["a"]), COMPRESS, ("names the shard ['a']",)),
    "shard with a NUL": (
        do.shard_at("a\0b.safetensors"),
        COMPRESS,
        ("the shard a\\x00b.safetensors is missing",),
    ),
    "shard is a link": (
        do.sharded(lambda _, folder: do.moved_out(f"llama/{do.SHARDS[0]}")(folder.parent)),
        COMPRESS,
        ("model-00001-of-00002.safetensors is a link to", "outside the folder", "cp -rL"),
    ),
    "index without shards": (do.sharded(lambda *_: {"weight_map": {}}), COMPRESS, ("names no shard",)),
    "index is a list": (do.sharded(lambda *_: "[]"), COMPRESS, ("is not an index of shards", "Restore it")),
    "index of a list": (do.sharded(lambda *_: {"weight_map": [1]}), COMPRESS, ("is not an index of shards",)),
    "index is deep": (do.sharded(lambda *_: DEEP), COMPRESS, ("nested too deeply", "Restore it")),
}
LINKS: dict[str, Row] = {
    "weights": (
        do.moved_out(do.WEIGHTS),
        COMPRESS,
        ("model.safetensors is a link to", "moved, outside the folder"),
    ),
    "weights, nowhere": (do.linked(do.WEIGHTS, "/nowhere"), COMPRESS, ("is a link to nothing",)),
    "config, in a circle": (
        do.linked("llama/config.json", "config.json"),
        "inspect llama",
        ("is a link to nothing",),
    ),
    "licence": (
        do.linked("llama/LICENSE", "/etc/passwd"),
        COMPRESS,
        ("LICENSE is a link to /etc/passwd", "cp -rL"),
    ),
    "tokenizer": (do.moved_out("llama/tokenizer.json"), COMPRESS, ("tokenizer.json is a link to",)),
    "module above": (
        do.modules(
            ("sentence_transformers.models.Transformer", ""),
            ("sentence_transformers.models.Pooling", "../llama"),
        ),
        BERT,
        ("a module is in '../llama', outside the folder", "Correct it"),
    ),
    "module by its path": (
        do.modules(("sentence_transformers.models.Transformer", "/etc")),
        BERT,
        ("in '/etc'",),
    ),
    "module of its own": (
        do.modules(("sentence_transformers.models.Transformer", ""), ("evil.Thing", "1_x")),
        BERT,
        ("evil.Thing needs code that comes with it, never run here",),
    ),
}
