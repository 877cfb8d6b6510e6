"""inspect, compress and evaluate from the command line: text and JSON, exit codes, what is left behind."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

import statprune
from statprune.demo import Demonstration, Row
from tests.cli.conftest import Command

COMPRESS = ("--samples", 12, "--seq-len", 32)


def one_object(printed: str) -> dict[str, Any]:
    """What stdout holds, strictly: one JSON object, without NaN or Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    found = json.loads(printed, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_compress_writes_a_folder_and_tells(command: Command, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = command(
        "compress", world / "llama", "--data", world / "text.txt", "--keep", 0.5, "--out", out, *COMPRESS
    )
    assert ended.code == 0
    for told in ("12 samples, 384 tokens", "feed-forward", "saved and verified", str(out), "params"):
        assert told in ended.out.replace("\n", "")
    assert ended.err == ""  # of a short run no line of progress where there is no terminal
    assert re.search(r"\(weights equal; outputs differ by \S+ where they reach [\d.]+\)", ended.out)
    assert "damage predicted" in ended.out
    assert "measured afterwards" in ended.out.replace("\n", " ")
    assert "block" not in ended.out.splitlines()[0]
    assert "Traceback" not in ended.err
    blocks = json.loads((out / "config.json").read_text())["per_layer_config"].values()
    assert min(block["intermediate_size"] for block in blocks) < 40
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_why_a_folder_is_not_stock_is_told(command: Command, world: Path, tmp_path: Path) -> None:
    ended = command(
        "compress", world / "bert", "--data", world / "text.jsonl", "--keep", 0.6, "--widths", "uniform",
        "--pin", "blocks.0.attention=2", "--out", tmp_path / "out",
    )  # fmt: skip
    assert ended.code == 0
    told = next(line for line in ended.out.splitlines() if line.startswith("not a stock folder: "))
    assert "the config of bert computes the size of a head" in told


def test_compress_as_json(command: Command, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = command(
        "compress", world / "bert", "--data", world / "text.jsonl", "--keep", 0.6, "--of", "macs",
        "--out", out, "--json", "--seed", 4, "--widths", "uniform", "--multiple", 4, "--backend", "qr",
        "--method", "stat",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    record = one_object(ended.out)
    assert record["out"] == str(out)
    assert record.pop("before") is False
    agreement = record.pop("agreement")
    assert agreement["difference"] <= 1e-5 * agreement["reach"]
    assert record["cost"]["macs"]["share"] <= 0.6
    assert record["data"]["seed"] == record["recipe"]["seed"] == 4
    assert {"widths": "uniform", "multiple": 4, "backend": "qr"}.items() <= record["recipe"].items()
    assert record | {"out": None} == one_object((out / "statprune.json").read_text()) | {"out": None}
    transformers.AutoModelForMaskedLM.from_pretrained(out)


def test_a_dry_run_shows_the_plan_that_would_be_carried_out(
    command: Command, world: Path, tmp_path: Path
) -> None:
    before = listing(tmp_path)
    arguments = ("compress", world / "llama", "--data", world / "text.txt", "--keep", 0.5, *COMPRESS)
    ended = command(*arguments, "--dry-run", "--json")
    assert (ended.code, ended.err) == (0, "")
    dry = one_object(ended.out)
    assert dry["out"] is None
    assert dry["trace"]["sites"] == []
    assert listing(tmp_path) == before
    text = command(*arguments, "--dry-run")
    assert (text.code, "saved" in text.out) == (0, False)
    done = one_object(command(*arguments, "--out", tmp_path / "out", "--json").out)
    assert done["plan"] == dry["plan"]


def test_a_plan_file_is_carried_out(command: Command, world: Path, tmp_path: Path) -> None:
    ended = command(
        "compress", world / "llama", "--data", world / "text.txt", "--plan", world / "plan.json",
        "--out", tmp_path / "out", *COMPRESS, "--json",
    )  # fmt: skip
    record = one_object(ended.out)
    assert record["plan"]["widths"]["blocks.0.feed_forward"] == 13
    assert sum(record["plan"]["widths"].values()) == 13 + 2 * 40 + 3 * 2
    assert record["recipe"]["plan"] == "plan.json"


def test_inspect_counts_what_the_model_has(command: Command, world: Path) -> None:
    model = transformers.LlamaForCausalLM.from_pretrained(world / "llama")
    ended = command("inspect", world / "llama", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = one_object(ended.out)
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert [site["units"] for site in found["sites"]] == [2, 40]
    text = command("inspect", world / "llama")
    assert text.code == 0
    assert f"{found['prunable_parameters']:,}" in text.out
    for told in ("neuron", "key-value", "norms in blocks", "which stay"):
        assert told in text.out


def test_evaluate_in_text_and_as_json(command: Command, world: Path) -> None:
    arguments = ("evaluate", world / "llama", "--data", world / "text.txt", "--seq-len", 32)
    ended = command(*arguments, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = one_object(ended.out)
    assert found["protocol"]["window"] == 32
    assert found["tokens"] == 31 * found["windows"]
    text = command(*arguments)
    assert text.code == 0
    assert text.out.startswith(f"perplexity {found['perplexity']:.4f} ")
    for fact in ("data", "split", "join", "window", "tokens", "dtype"):
        assert f"\n  {fact}: " in text.out
    capped = one_object(command(*arguments, "--json", "--max-tokens", 70).out)
    assert capped["windows"] == 2


def test_evaluate_an_encoder(command: Command, world: Path) -> None:
    arguments = ("evaluate", world / "bert", "--data", world / "text.jsonl")
    losses = [one_object(command(*arguments, "--json", "--seed", seed).out)["loss"] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    assert command(*arguments, "--seed", 1).out.startswith(f"masked-token loss {losses[0]:.5f} nats")


def test_what_was_compressed_can_be_inspected_and_evaluated(
    command: Command, world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command(
        "compress", world / "llama", "--data", world / "text.txt", "--keep", 0.6, "--out", out,
        "--widths", "per-layer", *COMPRESS,
    )  # fmt: skip
    record = one_object((out / "statprune.json").read_text())
    found = one_object(command("inspect", out, "--json").out)
    assert found["prunable_parameters"] == record["cost"]["params"]["kept"]
    before, after = (
        one_object(command("evaluate", model, "--data", world / "text.txt", "--json").out)["perplexity"]
        for model in (world / "llama", out)
    )
    assert before != after


def test_the_demonstration_is_shown(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = Row("dense", 1.0, 260032, 5.25, 1000.0, 1.0, "Once upon a time.", None, 0.0)
    thin = Row("keep 0.75", 0.746, 202432, 9.75, 1250.0, 1.25, "Once [more].", "demo-output/thin", 3.5)
    done = Demonstration((dense, thin), {"window": 256}, {"batch": 16}, 12.3)
    asked: list[Path] = []
    monkeypatch.setattr(statprune, "demonstrate", lambda out, **_: asked.append(out) or done)
    ended = command("demo", "--out", tmp_path)
    assert (ended.code, ended.err, asked) == (0, "", [tmp_path])
    for told in (
        "74.6%",
        "202,432",
        "9.75",
        "1.25x",
        "window: 256",
        "Once [more].",
        "demo-output/thin",
        "12 s",
    ):
        assert told in ended.out
    ended = command("demo", "--out", tmp_path, "--json")
    assert one_object(ended.out)["rows"][1]["speed_up"] == 1.25


def test_version_and_help(command: Command) -> None:
    assert command("--version").out == f"statprune {statprune.__version__}\n"
    assert command("--version").code == 0
    for name in ("inspect", "compress", "evaluate", "demo"):
        ended = command(name, "--help")
        assert (ended.code, ended.err) == (0, "")
    bare = command()
    assert (bare.code, bare.err) == (2, "")
    assert "compress" in bare.out


def test_debug_shows_the_traceback(world: Path) -> None:
    with pytest.raises(statprune.InputError, match="no-such"):
        statprune.cli.main.run(["inspect", str(world / "no-such"), "--debug"])


def failing(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_our_own_failure_is_one_line_and_exit_code_1(
    command: Command, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statprune, "inspect", failing(ZeroDivisionError("a fault\n  in two lines")))
    ended = command("inspect", world / "llama")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: ZeroDivisionError: a fault in two lines (")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_an_interrupt_ends_with_130_and_leaves_no_half_folder(
    extra: tuple[str, ...], command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted when the folder is being written."""
    monkeypatch.setattr("statprune.checkpoint.save.verify", failing(KeyboardInterrupt()))
    ended = command(
        "compress", world / "llama", "--data", world / "text.txt", "--keep", 0.5, "--out",
        tmp_path / "out", *COMPRESS, *extra,
    )  # fmt: skip
    assert ended.code == 130
    assert ended.err.splitlines()[-1].startswith("interrupted")
    assert ended.err.endswith(f"{tmp_path}/out.unfinished keeps what was done: go on with --resume.\n")
    assert "Traceback" not in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]


def listing(folder: Path) -> dict[str, int]:
    """Every file and folder below, and when it was changed."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_the_installed_command(world: Path, tmp_path: Path) -> None:
    """In a process of its own, with 128 samples asked where there are fewer."""
    installed = Path(sys.executable).with_name("statprune")
    arguments = ["compress", world / "llama", "--data", world / "text.txt", "--keep", "0.5", "--json"]
    arguments += ["--widths", "uniform"]
    ended = subprocess.run(
        [installed, *arguments, "--out", tmp_path / "out"],
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    record = one_object(ended.stdout.decode())
    assert record["out"] == str(tmp_path / "out")
    assert "available; all are used" in record["notes"][0]
    assert transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out").config.intermediate_size < 40
