"""Batches hold what a plain recomputation of the documented rule gives."""

import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from statprune.calibration import samples as module
from statprune.calibration.records import Records, from_memory, read
from statprune.calibration.samples import sentences, windows
from statprune.errors import DataError

BOS, SEP, PAD = 256, 257, 258


def byte_tokenizer(single="<s> $A", pair="<s> $A </s> $B:1 </s>:1", **options):
    """One token a byte, in byte order; `<s>` is 256, `</s>` 257, `<pad>` 258."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    printable = [n for n in range(256) if chr(n) in alphabet]
    others = iter(range(256, 512))
    letters = [chr(n) if n in printable else chr(next(others)) for n in range(256)]
    assert set(letters) == set(alphabet)
    vocabulary = {letter: n for n, letter in enumerate(letters)} | {"<s>": BOS, "</s>": SEP, "<pad>": PAD}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", BOS), ("</s>", SEP)]
    )
    options = {
        "bos_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 16,
    } | options
    return PreTrainedTokenizerFast(tokenizer_object=core, **options)


@pytest.fixture
def decoder():
    return byte_tokenizer()


@pytest.fixture
def encoder():
    return byte_tokenizer(
        single="<s> $A </s>", model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows_of(batches):
    """The rows without padding, in order."""
    return [
        ids[mask == 1].tolist()
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def test_windows_are_those_of_the_joined_text(decoder):
    texts = ["Hello there.", "", "Wörter\n", "and so on, and on"]
    stream = [BOS, *"\n\n".join(texts).encode()]
    cut = [stream[i : i + 5] for i in range(0, len(stream) - 4, 5)]
    drawn = windows(from_memory(texts), decoder, samples=4, seq_len=5, generator=seeded(), batch_tokens=10)
    order = torch.randperm(len(cut), generator=seeded())[:4].tolist()
    assert rows_of(drawn.batches) == [cut[i] for i in order]
    assert [tuple(batch["input_ids"].shape) for batch in drawn.batches] == [(2, 5), (2, 5)]
    assert all(
        batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64 for batch in drawn.batches
    )
    assert drawn.tokens == 20
    assert drawn.notes == ()
    facts = drawn.protocol
    assert (facts["samples"], facts["asked"], facts["seq_len"], facts["tokens"]) == (4, 4, 5, 20)
    assert (facts["seed"], facts["beginning_of_text"], facts["join"]) == (0, True, "\n\n")
    assert facts["available"] == len(cut)
    assert json.loads(json.dumps(facts)) == facts


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=8).filter(
        lambda texts: any(t.strip() for t in texts)
    ),
    seq_len=st.integers(1, 12),
    samples=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_windows_never_repeat_and_never_leave_the_text(texts, seq_len, samples, seed):
    stream = [BOS, *"\n\n".join(texts).encode("utf-8")]
    cut = [tuple(stream[i : i + seq_len]) for i in range(0, len(stream) - seq_len + 1, seq_len)]
    if not cut:
        return
    drawn = windows(from_memory(texts), TOKENIZER, samples=samples, seq_len=seq_len, generator=seeded(seed))
    rows = [tuple(row) for row in rows_of(drawn.batches)]
    assert len(rows) == min(samples, len(cut))
    assert all(rows.count(row) <= cut.count(row) for row in rows)
    if samples >= len(cut):
        assert sorted(rows) == sorted(cut)
    assert (len(drawn.notes) == 1) == (samples > len(cut))


TOKENIZER = byte_tokenizer()


def test_the_seed_alone_decides(decoder):
    records = from_memory(["abcdefghijklmnopqrstuvwxyz" * 20])
    first, again, other = (
        rows_of(windows(records, decoder, samples=8, seq_len=4, generator=seeded(seed)).batches)
        for seed in (1, 1, 2)
    )
    assert first == again != other
    state = torch.get_rng_state()
    windows(records, decoder, samples=8, seq_len=4, generator=seeded())
    sentences(records, decoder, samples=8, seq_len=4, generator=seeded())
    assert torch.equal(state, torch.get_rng_state())


def test_fewer_windows_than_asked_are_all_used_and_said(decoder):
    drawn = windows(from_memory(["x" * 20]), decoder, samples=96, seq_len=5, generator=seeded())
    assert drawn.notes == ("96 windows asked, 4 available; all are used",)
    assert drawn.protocol["samples"] == 4


def test_less_than_one_window_says_how_many_tokens(decoder):
    with pytest.raises(DataError, match="memory: 4 tokens, but one window needs 5"):
        windows(from_memory(["abc"]), decoder, samples=1, seq_len=5, generator=seeded())


def test_token_ids_are_joined_directly_and_need_no_tokenizer():
    records = from_memory([[1, 2, 3], [4, 5], np.array([6, 7])])
    drawn = windows(records, None, samples=3, seq_len=2, generator=seeded())
    assert sorted(rows_of(drawn.batches)) == [[1, 2], [3, 4], [5, 6]]
    assert drawn.protocol["join"] is None
    assert drawn.protocol["beginning_of_text"] is False


def test_a_huge_source_is_read_as_far_as_the_pool(decoder, monkeypatch):
    monkeypatch.setattr(module, "POOL_FACTOR", 2)
    texts = [f"{n:010d}" for n in range(100)]
    # 2 x 2 samples x 2 tokens x 8 characters: five records of 10 and their joins fit in 64, not six.
    drawn = windows(from_memory(texts), decoder, samples=2, seq_len=2, generator=seeded())
    assert drawn.protocol["pool"] == "5 of 100 records, 58 characters"
    assert drawn.protocol["available"] == (1 + 58) // 2
    assert "pool" in drawn.notes[0]


def test_one_huge_document_is_cut_after_a_line(decoder, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "POOL_FACTOR", 1)
    (tmp_path / "book.txt").write_text("a line of 18 chars\n" * 50)
    drawn = windows(read(str(tmp_path / "book.txt")), decoder, samples=2, seq_len=4, generator=seeded())
    assert drawn.protocol["pool"] == "1 of 1 records, 57 characters"


def test_the_beginning_of_text_is_put_once(decoder):
    # As chat templates do: they write the token into the text.
    drawn = windows(from_memory(["<s>ab"]), decoder, samples=9, seq_len=1, generator=seeded())
    assert sorted(rows_of(drawn.batches)) == [[97], [98], [BOS]]
    plain = byte_tokenizer(single="$A")
    assert windows(from_memory(["ab"]), plain, samples=9, seq_len=1, generator=seeded()).tokens == 2


def test_long_texts_are_tokenised_without_a_warning(decoder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        windows(from_memory(["x" * 100]), decoder, samples=1, seq_len=50, generator=seeded())
        sentences(from_memory(["x" * 100]), decoder, samples=1, seq_len=50, generator=seeded())
    assert caplog.text == ""


def test_sentences_are_records_with_special_tokens(encoder):
    texts = ["bb", "", "a", "cccc\n", "dddddddd"]
    drawn = sentences(from_memory(texts), encoder, samples=9, seq_len=6, generator=seeded(), batch_tokens=10)
    expected = [[BOS, *body, SEP] for body in (b"bb", b"a", b"cccc", b"dddd")]
    assert sorted(rows_of(drawn.batches)) == sorted(expected)
    lengths = [len(row) for row in rows_of(drawn.batches)]
    assert lengths == sorted(lengths, reverse=True)
    assert [tuple(batch["input_ids"].shape) for batch in drawn.batches] == [(1, 6), (1, 6), (2, 4)]
    assert drawn.batches[2]["input_ids"][1].tolist() == [BOS, 97, SEP, PAD]
    assert drawn.batches[2]["attention_mask"][1].tolist() == [1, 1, 1, 0]
    assert drawn.tokens == drawn.protocol["tokens"] == 19
    assert (drawn.protocol["truncated"], drawn.protocol["special_tokens"]) == (1, 8)
    assert drawn.notes == (
        "9 samples asked, 4 records available; all are used",
        "1 of 4 samples were longer than 6 tokens and are truncated",
    )
    assert json.loads(json.dumps(drawn.protocol)) == drawn.protocol


def test_sentences_are_drawn_without_replacement(encoder):
    texts = [f"{n:03d}" for n in range(50)]
    drawn = sentences(from_memory(texts), encoder, samples=20, seq_len=9, generator=seeded(3))
    order = torch.randperm(50, generator=seeded(3))[:20].tolist()
    assert rows_of(drawn.batches) == [[BOS, *texts[n].encode(), SEP] for n in order]


def test_pairs_stay_pairs_with_their_types(encoder):
    drawn = sentences(
        from_memory([("ab", "c"), (" ", "")]), encoder, samples=1, seq_len=9, generator=seeded()
    )
    batch = drawn.batches[0]
    assert batch["input_ids"].tolist() == [[BOS, 97, 98, SEP, 99, SEP]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids"}


def test_lines_of_prose_are_samples_and_the_layouts_of_a_text_agree(encoder):
    lines = [" one\n", "", " two\n"]
    layouts = [
        Records(["".join(line or "\n" for line in lines)], {}, "document"),
        Records(lines, {}, "wikitext"),
        Records(lines, {}, "records"),
    ]
    for records in layouts:
        drawn = sentences(records, encoder, samples=9, seq_len=9, generator=seeded())
        assert sorted(rows_of(drawn.batches)) == [[BOS, *b" one", SEP], [BOS, *b" two", SEP]]


def test_without_a_padding_token_the_mask_tells(encoder):
    encoder.pad_token = None
    drawn = sentences(from_memory(["aaa", "b"]), encoder, samples=2, seq_len=9, generator=seeded())
    assert drawn.batches[0]["input_ids"][1].tolist() == [BOS, 98, SEP, 0, 0]
    assert drawn.batches[0]["attention_mask"][1].tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("rule", [windows, sentences])
def test_what_no_rule_can_use(rule, decoder):
    records = from_memory(["some text"])
    with pytest.raises(DataError, match="a tokenizer that is missing; pass the model's tokenizer"):
        rule(records, None, samples=1, seq_len=4, generator=seeded())
    with pytest.raises(DataError, match="0 samples of 4 tokens"):
        rule(records, decoder, samples=0, seq_len=4, generator=seeded())


def test_a_sequence_needs_room_beside_the_special_tokens(encoder):
    with pytest.raises(
        DataError, match="sequence length 2: no room for text beside 2 special tokens; take at least 3"
    ):
        sentences(from_memory(["a"]), encoder, samples=1, seq_len=2, generator=seeded())
