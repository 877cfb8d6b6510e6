"""The table in the docs, and the one that the command prints, are those of the entries."""

import json
import sys
from pathlib import Path

import pytest

from statprune.anatomy.lookup import ARCHITECTURES, entry_for
from statprune.anatomy.support import as_markdown, support
from statprune.cli.main import run
from tests.tiny import MODEL_TYPES, REFUSED

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->"


def test_the_table_in_the_docs_is_that_of_the_entries() -> None:
    """To renew it, run this file as a module."""
    found = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert found == as_markdown()


def test_every_type_is_in_it_once() -> None:
    named = [name for row in support() for name in row.model_types]
    assert sorted(named) == sorted([*MODEL_TYPES, *REFUSED])
    assert [row.model_types for row in support()] == [entry.model_types for entry in ARCHITECTURES]


def test_what_cannot_be_lost_is_said_with_its_reason() -> None:
    by_type = {row.model_types[0]: row for row in support()}
    assert "position bias" in by_type["t5"].stays
    assert by_type["t5"].pruned == "encoder: neurons, decoder: neurons"
    assert by_type["albert"].pruned == "nothing"
    assert "again and again" in by_type["albert"].stays
    assert "decoder: heads of cross-attention" in by_type["bart"].pruned
    assert by_type["llama"].stock_heads == "load in stock transformers; llama as mistral where it must"
    assert "trust_remote_code" in by_type["bert"].stock_heads
    assert entry_for("t5").kind == by_type["t5"].kind


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["inspect", "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)["supported"]
    assert [tuple(row["model_types"]) for row in told] == [row.model_types for row in support()]
    with pytest.raises(SystemExit):
        run(["inspect"])
    shown = capsys.readouterr()
    assert "modernbert" in shown.out + shown.err


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + as_markdown() + END + rest.partition(END)[2], encoding="utf-8")
    sys.exit(0)
