"""Tokenizers: what llama.cpp is told, and that those it would misread are refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, GemmaTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from statprune.errors import ModelError
from statprune.export.gguf import export_gguf
from statprune.export.gguf_pieces import split_by_scores
from statprune.export.gguf_vocabulary import PROBE, Vocabulary, vocabulary_of
from tests.export.gguf_models import saved
from tests.export.llama_graph import LlamaGraph
from tests.saved import letter_tokenizer
from tests.tiny import tiny_model

STORIES = Path(__file__).parents[2] / "src/statprune/assets/stories260K"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)


def by_pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(
    split: Any = WORDS, *, normalizer: Any = None, ignore_merges: bool = False, begin: bool = False
) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    core.pre_tokenizer = split
    core.decoder = decoders.ByteLevel()
    if normalizer is not None:
        core.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([PROBE] * 3, trainer)
    core.add_tokens([AddedToken("<think>", special=False)])
    if begin:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def told(tokenizer: Any, rows: int = 600) -> Vocabulary:
    return vocabulary_of(tokenizer, tiny_model("llama", vocab_size=rows))


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [
        ("gpt-2", byte_level()),
        ("smollm", byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), WORDS]))),
        ("qwen2", byte_level(by_pattern(QWEN2), normalizer=normalizers.NFC())),
        ("llama-bpe", byte_level(by_pattern(LLAMA3), ignore_merges=True, begin=True)),
        ("dbrx", byte_level(by_pattern(LLAMA3))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_way_text_is_split_gets_its_name(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    found = told(tokenizer)
    assert (found.model, found.pre) == ("gpt2", name)
    assert found.scores is None
    assert found.add_space_prefix is None
    assert found.add_bos is (name == "llama-bpe")
    assert not found.add_eos
    assert any("NFC" in note for note in found.notes) is (name == "qwen2")


def test_every_row_of_the_embedding_has_a_token() -> None:
    tokenizer = byte_level()
    found = told(tokenizer, rows=310)
    assert len(found.tokens) == len(found.types) == 310
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert (kinds["<s>"], kinds["<think>"], kinds["a"], kinds["[PAD305]"]) == (3, 4, 1, 5)
    assert [tokenizer.convert_tokens_to_ids(token) for token in found.tokens[:301]] == list(range(301))
    assert found.merges is not None
    assert all("".join(merge.split(" ")) in kinds for merge in found.merges)
    assert found.special == {"bos": 0, "eos": 1}


@pytest.mark.parametrize(
    ("tokenizer", "why"),
    [
        (letter_tokenizer(), "its algorithm is WordLevel"),
        (byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), "no name.*add_prefix_space"),
        (byte_level(by_pattern(r"\p{L}+")), "no name.*known are gpt-2, smollm"),
        (byte_level(ignore_merges=True), "ignore_merges=True"),
        (byte_level(normalizer=normalizers.Lowercase()), "Lowercase"),
    ],
    ids=["words", "prefix", "pattern", "ignore-merges", "lowercase"],
)
def test_rules_without_a_name_are_refused(tokenizer: PreTrainedTokenizerFast, why: str) -> None:
    with pytest.raises(ModelError, match=f"{why}.*--no-tokenizer"):
        told(tokenizer)


def test_a_token_beyond_the_embedding_is_refused() -> None:
    with pytest.raises(ModelError, match=r"token 300 \('<think>'\) is beyond the 300 rows"):
        told(byte_level(), rows=300)


def test_sentencepiece_scores_split_as_the_merges_do() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    found = told(tokenizer, rows=512)
    assert (found.model, found.pre, found.merges) == ("llama", "default", None)
    assert (found.add_bos, found.add_eos, found.add_space_prefix) == (True, False, True)
    assert found.types[:5] == (2, 3, 3, 6, 6)
    assert found.special["bos"] == 1
    assert found.scores is not None
    scores = dict(zip(found.tokens, found.scores, strict=True))
    draw = random.Random(0)
    texts = ["".join(draw.choices("the and sad .,\n'Tomé", k=40)) for _ in range(50)]
    for text in [PROBE, *texts]:
        ours = [found.tokens.index(piece) for piece in split_by_scores(text, scores, prefix=True)]
        assert ours == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("options", "prefix"), [({}, True), ({"legacy": True}, True), ({"add_prefix_space": False}, False)]
)
def test_the_llama_tokenizer_of_transformers_can_be_said(options: dict[str, Any], prefix: bool) -> None:
    core = json.loads((STORIES / "tokenizer.json").read_text())["model"]
    merges = [tuple(pair) for pair in core["merges"]]
    found = told(LlamaTokenizer(vocab=core["vocab"], merges=merges, **options), rows=520)
    assert (found.model, found.add_space_prefix) == ("llama", prefix)
    assert (found.types[0], found.special["unk"]) == (2, 0)


def test_the_gemma_tokenizer_of_transformers_can_be_said() -> None:
    core = json.loads((STORIES / "tokenizer.json").read_text())["model"]
    merges = [tuple(pair) for pair in core["merges"]]
    found = told(GemmaTokenizer(vocab=core["vocab"], merges=merges), rows=520)
    assert (found.model, found.add_space_prefix) == ("llama", False)


def test_merges_that_no_scores_can_say_are_refused() -> None:
    def with_merges(merges: list[tuple[str, str]], *extra: str) -> PreTrainedTokenizerFast:
        pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"Helo wrd".replace(" ", "")]
        pieces += dict.fromkeys([*("".join(pair) for pair in merges), *extra])
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
        core.normalizer = normalizers.Sequence([normalizers.Replace(" ", "▁")])
        return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<unk>")

    in_order = [("l", "l"), ("l", "o"), ("ll", "o"), ("l", "lo")]
    found = told(with_merges(in_order))
    assert (found.add_bos, found.add_space_prefix) == (False, False)
    with pytest.raises(ModelError, match=r"merge 4, l \+ lo, comes later than others"):
        told(with_merges([*in_order[:3], ("H", "e"), in_order[3]]))
    # No merge makes "or", but llama.cpp joins the two all the same.
    with pytest.raises(ModelError, match=r"a text splits otherwise from token \d+ on: \['or'"):
        told(with_merges(in_order, "or"))


def test_the_file_holds_the_tokenizer(tmp_path: Path, alone: None) -> None:
    tokenizer = byte_level(begin=True)
    tokenizer.chat_template = "{{ messages }}"
    folder = saved(tmp_path / "model", tiny_model("llama", vocab_size=310), tokenizer)
    written = export_gguf(folder, tmp_path / "model.gguf")
    assert written.tokenizer == "gpt2/gpt-2"
    fields = LlamaGraph(tmp_path / "model.gguf").fields
    found = told(tokenizer, rows=310)
    assert tuple(fields["tokenizer.ggml.tokens"]) == found.tokens
    assert tuple(fields["tokenizer.ggml.merges"]) == found.merges
    assert fields["tokenizer.ggml.bos_token_id"] == 0
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.chat_template"] == "{{ messages }}"


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path, alone: None) -> None:
    folder = saved(tmp_path / "model", tiny_model("llama"))
    with pytest.raises(ModelError, match=r"holds no tokenizer.*--no-tokenizer"):
        export_gguf(folder, tmp_path / "model.gguf")
    export_gguf(folder, tmp_path / "model.gguf", tokenizer=False)
    fields = LlamaGraph(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.model"] == "none"
