"""What cannot be used is refused in one line, before any pass over the data, with nothing written."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.cli.conftest import Command
from tests.cli.test_commands import listing, one_object

# (arguments, what the line must hold: value, place and remedy). {out} is a folder that does not exist.
MODELS = {
    "./nowhere": ("./nowhere does not exist", "Give a folder with a model, or its name on the hub"),
    "no/such-model": ("'no/such-model' is no folder here", "hub", "Check the spelling or the connection"),
    "text.txt": ("text.txt is a file", "Give the folder"),
    "no-config": ("no-config holds no config.json", "Give the folder"),
    "unheard-of": ("model type 'lama'", "Update transformers"),
    "other-class": ("other-class: LlamaForNothing", "Write the name of the class"),
    "own-code": ("own-code: Own needs code", "modeling_own.Own", "Convert it to a stock class"),
    "wide": ("wide/config.json cannot be read", "hidden_size", "Correct it"),
    "quantised": ("quantised is quantised (gptq)", "Prune the original checkpoint, then quantise"),
    "adapter": ("adapter holds an adapter without its base", "merge it"),
}
WEIGHTS = {
    "no-weights": ("no-weights holds no model.safetensors", "Complete the folder"),
    "pickled": ("pickled holds weights only as a pickle (pytorch_model.bin)", "Convert it to safetensors"),
    "truncated": ("truncated/model.safetensors is damaged or cut short", "bytes", "Copy it again"),
    "nan": ("model.layers.1.mlp.up_proj.weight holds 1 NaN and 0 infinite of 1280", "another checkpoint"),
    "inf": ("model.layers.1.mlp.up_proj.weight holds 0 NaN and 1 infinite of 1280", "another checkpoint"),
    "no-tokenizer": ("no-tokenizer: no tokenizer, but the data is text", "Give a tokenizer"),
}
DATA = {
    "nowhere.txt": ("nowhere.txt: no such file", "check the path"),
    "no/such-data": (
        "hub data set 'no/such-data'",
        "check the name and the connection, or give a local file",
    ),
    "empty.txt": ("empty.txt", "no text", "give data that is not empty"),
    "empty.jsonl": ("empty.jsonl: the file is empty", "give a file with at least one record"),
    "no-data": ("no-data: no data file", "name a file"),
    "short.txt": ("short.txt: 11 tokens, but one window needs 64", "give more text or a shorter sequence"),
    "bad.jsonl": ("bad.jsonl, line 2: not JSON", "each line must hold one JSON object"),
    "null.jsonl": ("null.jsonl, record 2: column 'text' holds null", "drop the record"),
    "pairs.csv": ("pairs.csv: 2 columns of strings", "name the text column", "a, b, n"),
    "latin.txt": ("latin.txt, byte 3: 0xe9 is not UTF-8", "convert the file to UTF-8"),
    "text.txt@test": ("text.txt", "split 'test'", "leave out '@test'"),
    "''": ("data source ''", "write NAME[:CONFIG][@SPLIT]"),
}
SHARED = {
    "--text-column body --data text.jsonl": ("text.jsonl: no column 'body'", "among: text"),
    "--text-column a,b,n --data pairs.csv": ("'a,b,n' names neither one column nor two", "--text-column"),
    "--seq-len 65": ("sequence length 65: this model takes from 2 to 64 tokens",),
    "--seq-len 1": ("sequence length 1: this model takes from 2 to 64 tokens",),
    "--seq-len 0": ("seq", "0", "at least 1 | from 2 to 64"),
    "--seq-len -3": ("seq", "-3", "at least 1 | from 2 to 64"),
    "--seq-len many": ("--seq-len", "'many' was given", "valid integer"),
    "--device tpu7": ("device is 'tpu7'", "give cpu, cuda or cuda:N"),
    "--device mps": ("device is 'mps'", "give cpu, cuda or cuda:N"),
    "--dtype int8": ("dtype is 'int8'", "choose one of auto, float32"),
    "--seed -1": ("--seed", "-1", "0<=x | 0"),
    "--seed=pi": ("--seed", "'pi' was given"),
    "--progress loud": ("'loud' is no way to show progress", "choose one of auto, bars, lines, json"),
    "--quiet --progress json": ("--quiet shows nothing, --progress json does", "give one of them"),
    "--log-file taken": ("log file taken cannot be written: it is a folder", "Give another file"),
    "--log-file nowhere/run.log": ("nowhere/run.log cannot be written: nowhere is no folder", "Give another"),
    "--bogus": ("No such option: --bogus",),
}
COMPRESS = {
    "--keep 0": ("keep is 0.0", "give a share above 0 and at most 1"),
    "--keep -0.1": ("keep is -0.1", "give a share above 0"),
    "--keep 1.5": ("keep is 1.5", "at most 1"),
    "--keep nan": ("keep is nan", "give a share"),
    "--keep inf": ("keep is inf", "give a share"),
    "--keep abc": ("--keep", "'abc' was given", "valid number"),
    "--keep 0.1": ("keep 0.1 of params cannot be reached", "0.3334 is left", "Keep at least that much"),
    "--keep 0.1 --of macs": ("keep 0.1 of macs cannot be reached", "Keep at least that much"),
    "--widths uniform --pin blocks.0.feed_forward=8 --pin blocks.1.feed_forward=16": (
        "no width is legal in every block",
        "blocks.0.feed_forward 8, blocks.1.feed_forward 16",
        "per-layer widths",
    ),
    "--plan plan.json": ("both keep (0.5) and a plan", "give one of them"),
    "--of flops": ("of is 'flops'", "choose one of params, macs"),
    "--method magic": ("method is 'magic'", "choose one of refit, stat"),
    "--widths some": ("widths is 'some'", "choose one of per-layer, uniform"),
    "--backend svd": ("backend is 'svd'", "choose one of gram, qr, gaussian, countsketch"),
    "--dtype float8": ("dtype is 'float8'", "choose one of"),
    "--samples 0": ("samples is 0", "at least 1"),
    "--samples -2": ("samples is -2", "at least 1"),
    "--multiple 0": ("multiple is 0", "at least 1"),
    "--out taken": ("taken exists, and nothing is ever overwritten", "Give another folder"),
    "--out text.txt": ("text.txt exists, and nothing is ever overwritten", "Give another folder"),
    "--out {out}/deep": ("{out}, where deep is to be written, is no folder", "Create it first"),
}
PLANS = {
    "nowhere.json": ("nowhere.json: no such plan file",),
    "plan-empty.json": ("the plan names no site", "blocks.0.attention (1 to 2)"),
    "plan-unknown.json": ("names 'blocks.7.feed_forward'", "it has blocks.0.attention (1 to 2)"),
    "plan-large.json": ("blocks.0.feed_forward: cannot keep 41 units", "from 1 to 40"),
    "plan-zero.json": ("blocks.0.attention: cannot keep 0 units", "from 1 to 2"),
    "plan-broken.json": ("plan-broken.json: not a readable plan file", "line 1"),
    "plan-list.json": ("plan-list.json: a plan is {{", '"widths" is missing'),
    "plan-newer.json": ("plan format 9", "this version reads format 1"),
}
STOCK = {
    "--keep 0.5": ("cannot be reached: with the fewest heads that stock", "Keep at least that much"),
    "--pin blocks.0.attention=3": ("pinned to 3 units, and no stock config", "nearest that one can: 4"),
}
BOTH = [
    *((model, says) for model, says in (MODELS | WEIGHTS).items()),
    *((f"llama --data {data}", says) for data, says in DATA.items()),
    *((f"llama {more}", says) for more, says in SHARED.items()),
]
ROWS: dict[str, tuple[str, ...]] = {
    **{f"{command} {row}": says for command in ("compress", "evaluate") for row, says in BOTH},
    **{f"inspect {model}": says for model, says in MODELS.items()},
    **{f"compress llama {more}": says for more, says in COMPRESS.items()},
    **{f"compress bert --widths stock {more}": says for more, says in STOCK.items()},
    **{f"compress llama --no-keep --plan {plan}": says for plan, says in PLANS.items()},
    "compress llama --no-keep": ("nothing says how much to keep", "give keep, a share in (0, 1], or a plan"),
    "compress llama --no-out": ("no output folder", "give --out DIR, or --dry-run"),
    "compress llama --no-data": ("no data; give data, or a measurement",),
    "compress few-words": ("token id", "the model's vocabulary has 16 tokens", "the model's own tokenizer"),
    "evaluate few-words": ("token id", "the model's vocabulary has 16 tokens", "the model's own tokenizer"),
    "compress decoding-bert": ("this 'bert' cannot be pruned", "(is_decoder=True)"),
    "inspect decoding-bert": ("this 'bert' cannot be pruned", "(is_decoder=True)"),
    "evaluate no-head": ("no-head: LlamaModel has no language-modelling head", "its own task"),
    "evaluate llama --seq-len 32 --max-tokens 31": ("max_tokens 31: less than one window", "at least 32"),
    "evaluate llama --max-tokens 0": ("--max-tokens", "0", "greater than or equal to 1"),
    "compress bert --data empty.txt": ("empty.txt", "no text"),
    "evaluate bert --seq-len 2": ("sequence length 2: no room for text", "take at least 3"),
    "export": ("Missing argument 'model'",),
    "shrink llama": ("No such command 'shrink'",),
}  # fmt: skip
DEFAULTS = {
    "compress": {"--data": "text.txt", "--samples": "12", "--keep": "0.5", "--out": "{out}"},
    "evaluate": {"--data": "text.txt"},
}


def complete(row: str, out: Path) -> list[str]:
    """The row's arguments, and the defaults of its command for what it neither gives nor leaves out."""
    given = shlex.split(row)
    for option, value in DEFAULTS.get(given[0], {}).items():
        left_out = f"--no-{option[2:]}"
        if left_out in given:
            given.remove(left_out)
        elif option not in given:
            given += [option, value]
    return [argument.format(out=out) for argument in given]


@pytest.fixture
def no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """No module computes anything."""

    def refuse(module: nn.Module, *_: Any, **__: Any) -> None:
        pytest.fail(f"{type(module).__name__} was called before the input was refused")

    monkeypatch.setattr(nn.Module, "__call__", refuse)


@pytest.mark.usefixtures("no_pass")
@pytest.mark.parametrize(
    "row",
    list(ROWS),
)
def test_bad_input_is_refused(
    row: str, command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    before = listing(tmp_path), listing(world)
    ended = command(*complete(row, tmp_path / "out"))
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, f"more than one line:\n{ended.err}"
    assert "Traceback" not in ended.err
    for wanted in ROWS[row]:
        choices = wanted.format(out=tmp_path / "out").split(" | ")
        assert any(choice in ended.err for choice in choices), f"{wanted!r} is not in {ended.err!r}"
    assert (listing(tmp_path), listing(world)) == before


@pytest.mark.usefixtures("no_pass")
@pytest.mark.skipif(torch.cuda.is_available(), reason="refused where there is no GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.parametrize("what", ["compress", "evaluate"])
def test_a_gpu_that_is_not_there(
    what: str, device: str, command: Command, world: Path, tmp_path: Path
) -> None:
    arguments = complete(f"{what} {world / 'llama'} --data {world / 'text.txt'}", tmp_path / "out")
    ended = command(*arguments, "--device", device)
    assert ended.code == 2
    assert (
        ended.err == f"error: device is '{device}', but torch sees 0 GPUs; give cpu, or one that is there.\n"
    )


@pytest.mark.usefixtures("no_pass")
@pytest.mark.parametrize("what", ["compress", "inspect"])
def test_an_unknown_model_gets_a_draft(what: str, command: Command, world: Path, tmp_path: Path) -> None:
    before = listing(tmp_path)
    arguments = complete(f"{what} {world / 'olmo'}", tmp_path / "out")
    if what == "compress":
        arguments[arguments.index("--data") + 1] = str(world / "text.txt")
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    first, *draft = ended.err.splitlines()
    assert first.startswith("error: model type 'olmo' (OlmoForCausalLM) has no entry; known are llama,")
    assert draft[0].startswith("# A draft")
    assert {'up = "mlp.up_proj"', 'down = "mlp.down_proj"'} <= set(draft)
    assert "(40, 32)" in ended.err
    assert listing(tmp_path) == before


@pytest.mark.parametrize("row", ["compress nan", "evaluate llama --data short.txt", "inspect adapter"])
def test_as_json_the_refusal_is_one_object(
    row: str, command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    ended = command(*complete(row, tmp_path / "out"), "--json")
    error = one_object(ended.out)["error"]
    assert (ended.code, error["exit_code"]) == (2, 2)
    assert ended.err == f"error: {error['message']}\n"
    assert error["kind"] in ("NonFiniteError", "DataError", "ModelError")


def test_the_smallest_share_that_is_named_can_be_reached(command: Command, world: Path) -> None:
    """Following the advice of the refusal leads to a plan."""
    arguments = ("compress", world / "llama", "--data", world / "text.txt", "--dry-run", "--samples", 12)
    for of in ("params", "macs"):
        refused = command(*arguments, "--keep", 0.05, "--of", of).err
        share = refused.partition(" is left")[0].split()[-1]
        done = json.loads(command(*arguments, "--keep", share, "--of", of, "--json").out)
        assert done["cost"][of]["share"] == pytest.approx(float(share), abs=2e-4)
