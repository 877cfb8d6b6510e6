"""`statprune benchmark` from the command line: text, JSON, and what is refused."""

from pathlib import Path

import pytest
import torch

from statprune.peak_memory import Pass
from tests.cli.conftest import Command
from tests.cli.test_commands import one_object

QUICK = ("--repeats", 1, "--seq-len", 8)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Pass]:
    """The passes whose memory a fresh process would measure; here each takes 5 MiB."""
    passes: list[Pass] = []
    monkeypatch.setattr(
        "statprune.efficiency.in_fresh_process", lambda each: passes.append(each) or 5 * 2**20
    )
    return passes


def test_two_models_side_by_side(command: Command, world: Path, asked: list[Pass]) -> None:
    model = world / "llama"
    ended = command("benchmark", model, "--against", model, "--json", "--decode-tokens", 2, *QUICK)
    assert (ended.code, ended.err) == (0, "")
    found = one_object(ended.out)
    assert found["pruned"]["file_bytes"] == (model / "model.safetensors").stat().st_size
    assert {found["ratios"][name] for name in ("parameters", "macs", "file_bytes")} == {1.0}
    assert found["pruned"]["forward_bytes"] == 5 * 2**20
    assert asked == 2 * [Pass(str(model), 1, 8, "auto", torch.get_num_threads())]
    assert found["protocol"]["decode_tokens"] == 2


def test_one_model_as_a_table(command: Command, world: Path) -> None:
    ended = command("benchmark", world / "bert", *QUICK)
    assert (ended.code, ended.err) == (0, "")
    for told in (
        "tokens per second over the prompt",
        "prefill, tokens/s",
        "file of weights",
        "5.24 MB",
        "repeats: 1",
    ):
        assert told in ended.out
    assert "decode, tokens/s" not in ended.out


def test_what_is_refused(command: Command, world: Path) -> None:
    for arguments, told in (
        (("llama", "--batch", 0), "batch is 0"),
        (("llama", "--seq-len", 65), "64 positions"),
        (("bert", "--decode-tokens", 4), "writes no text"),
        (("llama", "--against", world / "few-words"), "vocabulary: 64 in"),
    ):
        ended = command("benchmark", world / arguments[0], *arguments[1:])
        assert ended.code == 2
        assert told in ended.err
        assert ended.out == ""
