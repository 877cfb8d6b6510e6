"""`statprune benchmark` from the command line: text, JSON, and what is refused."""

from pathlib import Path

from tests.cli.conftest import Command
from tests.cli.test_commands import one_object

QUICK = ("--repeats", 1, "--seq-len", 8)


def test_two_models_side_by_side(command: Command, world: Path) -> None:
    model = world / "llama"
    ended = command("benchmark", model, "--against", model, "--json", "--decode-tokens", 2, *QUICK)
    assert (ended.code, ended.err) == (0, "")
    found = one_object(ended.out)
    assert found["pruned"]["file_bytes"] == (model / "model.safetensors").stat().st_size
    assert {found["ratios"][name] for name in ("parameters", "macs", "file_bytes")} == {1.0}
    assert found["pruned"]["forward_bytes"] is None or found["pruned"]["forward_bytes"] >= 0
    assert found["protocol"]["decode_tokens"] == 2


def test_one_model_as_a_table(command: Command, world: Path) -> None:
    ended = command("benchmark", world / "bert", *QUICK)
    assert (ended.code, ended.err) == (0, "")
    for told in ("tokens per second over the prompt", "prefill, tokens/s", "file of weights", "repeats: 1"):
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
