"""What a card says: widths, licence, base model; names that are hostile; the same bytes for the same run."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import statprune
from statprune.card.card import BEGIN, END, card_of
from statprune.card.dense_model import base_of
from statprune.card.loading import Opening
from statprune.card.markdown import block, code, escaped
from statprune.card.removed import removed
from tests.card.records import record
from tests.saved import save_tiny, sentences

LICENCES: dict[str, tuple[str | None, str, str | None, str]] = {
    "stated": ("license: mit\n", "", "mit", "`mit`, as the base model's card says."),
    "named": (
        "license: other\nlicense_name: llama3\nlicense_link: LICENSE\n",
        "",
        "other",
        "`other`, llama3, LICENSE, as the base model's card says.",
    ),
    "file": ("", "\nApache License\nVersion 2.0\n", "other", "in `LICENSE`, which begins: `Apache License`."),
    "none": ("", "", None, "unknown, see the base model."),
    "broken": ("license: [\n", "", None, "unknown, see the base model."),
    "not a word": ("license: {a: 1}\n", "", None, "unknown, see the base model."),
}


def folder_with(folder: Path, metadata: str, licence: str = "") -> Path:
    folder.mkdir()
    (folder / "README.md").write_text(f"---\n{metadata}---\nText.\n")
    if licence:
        (folder / "LICENSE").write_text(licence)
    return folder


@pytest.mark.parametrize("case", LICENCES)
def test_a_licence_is_inherited_or_unknown_and_never_guessed(case: str, tmp_path: Path) -> None:
    metadata, licence, identifier, told = LICENCES[case]
    folder = folder_with(tmp_path / "base", metadata, licence)
    base = base_of(str(folder), folder)
    assert base.licence == identifier
    assert told in base.licence_told
    assert base.metadata.get("license") == identifier


def test_a_licence_in_the_config(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "base", "")
    (folder / "config.json").write_text('{"license": "gemma"}')
    assert base_of("base", folder).licence == "gemma"


def test_only_a_name_on_the_hub_becomes_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder models/base here looks like one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / "base"
    folder.parent.mkdir()
    folder_with(folder, "")
    assert base_of("models/base", folder).repository is None
    assert base_of("models/base", folder).name == "base"
    assert base_of(str(folder), folder).repository is None
    assert base_of("owner/base", folder).repository == "owner/base"
    assert base_of("LlamaForCausalLM in memory", None).repository is None


def test_of_the_base_card_only_what_holds_is_inherited(tmp_path: Path) -> None:
    text = (
        "language: [en, de]\npipeline_tag: text-generation\nlibrary_name: transformers\n"
        "tags: [chat, onnx, gguf]\ndatasets: [d]\nmodel-index:\n- name: x\n  results: []\nwidget: [a]\n"
    )
    base = base_of("owner/base", folder_with(tmp_path / "base", text))
    assert base.metadata == {
        "language": ["en", "de"],
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": ["chat"],
    }
    data = ModelCard(written(tmp_path, base)).data.to_dict()
    assert data["base_model"] == "owner/base"
    assert data["tags"] == ["chat", "statprune", "pruned", "custom_code"]
    assert "model-index" not in data


def written(folder: Path, base: Any, content: dict[str, Any] | None = None) -> str:
    opening = Opening(folder, "StatpruneLlamaForCausalLM", False, "blocks differ.", False, False, "llama")
    return card_of(content or record(), base, opening, None)


def test_widths_are_a_line_where_even_and_a_table_where_not() -> None:
    even = record(2)
    even["plan"]["widths"] = {name: 2 for name in even["units"] if "attention" in name}
    assert (
        "- attention, in heads (where several share keys and values: in such groups): 4 -> 2, in every"
        in (removed(even))
    )
    assert "| block |" not in removed(even)
    uneven = record(80)
    for index in range(40, 80):
        uneven["plan"]["widths"] |= {f"blocks.{index}.attention": 4, f"blocks.{index}.feed_forward": 9}
    lines = removed(uneven).splitlines()
    assert "| block | attention | feed-forward |" in lines
    assert "| 3 | 4 | 88 -> 11 |" in lines
    assert "| 40-79 | 4 | 88 -> 9 |" in lines
    assert len(lines) < 55


HOSTILE = "<b>`x`</b>\n---\n# **|** [a](b) www.x.y me@x.y ```"


def test_hostile_names_show_and_do_nothing(tmp_path: Path) -> None:
    content = record(model=HOSTILE, notes=[HOSTILE, f"{BEGIN}{END}"])
    content["plan"]["why"] = content["data"]["rule"] = HOSTILE
    content["data"]["source"] = {"source": HOSTILE, "kind": HOSTILE}
    text = written(tmp_path, base_of(HOSTILE, None), content)
    card = ModelCard(text)
    assert card.data.to_dict()["tags"] == ["statprune", "pruned", "custom_code"]
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
    prose = card.text.replace(block(command(content), "sh"), "")
    titles = [line for line in prose.splitlines() if line.startswith("#")]
    assert [line for line in titles if not line.startswith("## ")] == [f"# {code(HOSTILE)}, pruned"]
    prose = prose.replace(code(HOSTILE), "")
    assert "<b>" not in prose
    assert "[a]" not in prose
    assert "\n---\n" not in prose.replace("| --- |", "")


def command(content: dict[str, Any]) -> str:
    from statprune.repeat import command_of  # noqa: PLC0415

    return command_of(content)


def test_words_and_code_of_others() -> None:
    assert escaped("a_b *c* <d> &\n e|f") == r"a_b \*c\* &lt;d&gt; &amp; e\|f"
    assert escaped("\x1b[31m\u202e") == "\N{REPLACEMENT CHARACTER}\\[31m\N{REPLACEMENT CHARACTER}"
    assert code("a`b``c") == "```a`b``c```"
    assert code("`") == "`` ` ``"
    assert block("a\n```\nb", "sh") == "````sh\na\n```\nb\n````"


def test_the_same_run_writes_the_same_card(tmp_path: Path) -> None:
    """Into folders of other names, and from a base model with a licence, which is in the record too."""
    save_tiny(tmp_path / "base", "llama")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (tmp_path / "base" / "NOTICE").write_text("A notice.\n")
    cards = []
    for out in (tmp_path / "one", tmp_path / "two"):
        result = statprune.compress(
            str(tmp_path / "base"), data=sentences(), keep=0.7, samples=8, seq_len=32, out=out, device="cpu"
        )
        cards.append((out / "README.md").read_bytes())
        assert (out / "NOTICE").exists()
        assert result.record["licence"] == json.loads((out / "statprune.json").read_text())["licence"]
    assert cards[0] == cards[1]
    assert ModelCard(cards[0].decode()).data.license == "apache-2.0"
    assert result.record["licence"] == "apache-2.0"
    assert str(tmp_path) not in cards[0].decode()
