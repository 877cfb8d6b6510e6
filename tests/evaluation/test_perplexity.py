"""Losses equal plain recomputations, for every layout of one text and every way of batching."""

import json
import math

import datasets
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from statprune.calibration.records import from_memory, read
from statprune.errors import DataError, NonFiniteError
from statprune.evaluation import devices
from statprune.evaluation.perplexity import masked_lm_loss, perplexity

LETTERS = "abcdefghijklmnopqrstuvwxyz =.\n"
SPECIAL = ["<s>", "</s>", "<pad>", "<mask>"]
BOS, SEP, PAD, MASK = range(len(LETTERS), len(LETTERS) + 4)
VOCABULARY = len(LETTERS) + len(SPECIAL)
ROWS = ["", " = title = \n", "", *(f" some words and {chr(97 + n)} few more . \n" for n in range(20))]


def letter_tokenizer(single, **special):
    """One token a letter."""
    vocabulary = {letter: n for n, letter in enumerate([*LETTERS, *SPECIAL])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", BOS), ("</s>", SEP)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.fixture(scope="module")
def decoder():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **sizes)
    return initialised(transformers.LlamaForCausalLM(config))


@pytest.fixture(scope="module")
def encoder():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **sizes)
    return initialised(transformers.BertForMaskedLM(config))


def initialised(model):
    """Weights large enough that the losses differ from those of a coin toss."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.dim() > 1 else 1)
            )
    return model.eval()


@pytest.fixture(scope="module")
def causal():
    return letter_tokenizer("<s> $A", bos_token="<s>")


@pytest.fixture(scope="module")
def masking():
    return letter_tokenizer(
        "<s> $A </s>", bos_token="<s>", sep_token="</s>", pad_token="<pad>", mask_token="<mask>"
    )


def by_the_usual_script(model, ids, window):
    """The loop that the GPTQ scripts share."""
    count = ids.numel() // window
    losses = []
    with torch.no_grad():
        for i in range(count):
            batch = ids[None, i * window : (i + 1) * window]
            logits = model(batch).logits
            loss = torch.nn.CrossEntropyLoss()(
                logits[:, :-1].reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1)
            )
            losses.append(loss.float() * window)
    return math.exp(torch.stack(losses).sum() / (count * window))


def letters(text):
    return [LETTERS.index(letter) for letter in text]


def layouts(folder):
    """One text as the hub gives it, as a saved data set, as a raw file and as a joined file."""
    hub = datasets.Dataset.from_dict({"text": ROWS})
    datasets.DatasetDict({"test": hub}).save_to_disk(folder / "saved")
    (folder / "wiki.test.raw").write_bytes("".join(row or " \n" for row in ROWS).encode())
    (folder / "joined.txt").write_bytes("\n\n".join(ROWS).encode())
    names = [f"{folder / 'saved'}@test", str(folder / "wiki.test.raw"), str(folder / "joined.txt")]
    return [from_memory(hub), *(read(name) for name in names)]


def test_every_layout_gives_the_number_of_the_usual_script(decoder, causal, tmp_path):
    ids = torch.tensor([BOS, *letters("\n\n".join(ROWS))])
    expected = by_the_usual_script(decoder, ids, 16)
    for records in layouts(tmp_path):
        found = perplexity(decoder, causal, records, seq_len=16)
        assert found.perplexity == pytest.approx(expected, abs=1e-4)
        assert found.perplexity == pytest.approx(math.exp(found.nll))
        assert found.windows == ids.numel() // 16
        assert found.tokens == 15 * found.windows


@pytest.mark.parametrize("batch_tokens", [1, 16, 50, 10**6])
@pytest.mark.parametrize("losses", [1, VOCABULARY * 7, 2**25])
def test_batches_and_pieces_change_nothing(decoder, causal, monkeypatch, batch_tokens, losses):
    records = from_memory(ROWS)
    expected = perplexity(decoder, causal, records, seq_len=16).nll
    monkeypatch.setattr(devices, "LOSSES_AT_ONCE", losses)
    found = perplexity(decoder, causal, records, seq_len=16, batch_tokens=batch_tokens)
    assert found.nll == pytest.approx(expected, abs=1e-6)


def test_no_more_logits_at_once_than_allowed(decoder, causal, monkeypatch):
    monkeypatch.setattr(devices, "LOGITS_AT_ONCE", 2 * 16 * VOCABULARY)
    rows = []
    hook = decoder.register_forward_pre_hook(
        lambda m, a, k: rows.append(len(k["input_ids"])), with_kwargs=True
    )
    perplexity(decoder, causal, from_memory(ROWS), seq_len=16)
    hook.remove()
    assert max(rows) == 2


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(decoder, causal):
    # All logits alike: every token has the probability 1/V, whatever the text.
    kept = decoder.lm_head.weight.data
    decoder.lm_head.weight.data = torch.zeros_like(kept)
    try:
        assert perplexity(decoder, causal, from_memory(ROWS), seq_len=8).perplexity == pytest.approx(
            VOCABULARY
        )
    finally:
        decoder.lm_head.weight.data = kept


def test_a_cap_reads_the_first_windows(decoder, causal):
    ids = torch.tensor([BOS, *letters("\n\n".join(ROWS))])
    found = perplexity(decoder, causal, from_memory(ROWS), seq_len=16, max_tokens=50)
    assert found.windows == 3
    assert found.perplexity == pytest.approx(by_the_usual_script(decoder, ids[:48], 16), abs=1e-4)
    assert found.protocol["max_tokens"] == 50


def test_the_protocol_says_all_that_must_agree(decoder, causal):
    found = perplexity(decoder, causal, from_memory(ROWS), seq_len=16)
    facts = found.to_json()
    assert json.loads(json.dumps(facts)) == facts
    protocol = facts["protocol"]
    assert (protocol["window"], protocol["stride"], protocol["join"]) == (16, 16, "\n\n")
    assert (protocol["dtype"], protocol["device"], protocol["beginning_of_text"]) == ("float32", "cpu", True)
    assert (protocol["tokens"], protocol["data"]["records"]) == (found.tokens, len(ROWS))
    without = perplexity(decoder, letter_tokenizer("$A", bos_token="<s>"), from_memory(ROWS), seq_len=16)
    assert without.protocol["beginning_of_text"] is False
    assert without.nll != found.nll


def test_progress_is_told_and_modes_are_put_back(decoder, causal):
    told = []
    decoder.train()
    decoder.model.layers[0].eval()
    modes = [module.training for module in decoder.modules()]
    perplexity(
        decoder,
        causal,
        from_memory(ROWS),
        seq_len=16,
        max_tokens=80,
        batch_tokens=32,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert modes == [module.training for module in decoder.modules()]
    decoder.eval()


def test_half_precision_is_summed_in_full(decoder, causal):
    low = initialised(transformers.LlamaForCausalLM(decoder.config)).to(torch.bfloat16)
    found = perplexity(low, causal, from_memory(ROWS), seq_len=16)
    ids = torch.tensor([BOS, *letters("\n\n".join(ROWS))])
    rows = ids[: ids.numel() // 16 * 16].view(-1, 16)
    with torch.no_grad():
        log_shares = low(rows).logits.double().log_softmax(-1)[:, :-1]
    expected = -log_shares.gather(-1, rows[:, 1:, None]).mean()
    assert found.nll == pytest.approx(float(expected), abs=1e-5)
    assert found.protocol["dtype"] == "bfloat16"


def test_what_has_no_perplexity(decoder, causal):
    records = from_memory(["abc"])
    with pytest.raises(DataError, match="memory: 4 tokens, but one window needs 16"):
        perplexity(decoder, causal, records, seq_len=16)
    with pytest.raises(DataError, match="tokenizer that is missing"):
        perplexity(decoder, None, records, seq_len=2)
    with pytest.raises(DataError, match="max_tokens 3: less than one window of 4"):
        perplexity(decoder, causal, records, seq_len=4, max_tokens=3)
    with pytest.raises(DataError, match="sequence length 1: nothing to predict"):
        perplexity(decoder, causal, records, seq_len=1)
    with pytest.raises(DataError, match="sequence length 65, but the model reads at most 64 tokens"):
        perplexity(decoder, causal, from_memory(ROWS), seq_len=65)
    with pytest.raises(DataError, match=f"token id 999, but the model's vocabulary has {VOCABULARY}"):
        perplexity(decoder, None, from_memory([[1, 2, 999, 3]]), seq_len=4)


def test_a_loss_that_is_not_a_number_is_an_error(decoder, causal):
    kept = decoder.lm_head.weight.data
    decoder.lm_head.weight.data = torch.full_like(kept, math.nan)
    try:
        with pytest.raises(NonFiniteError, match="is nan"):
            perplexity(decoder, causal, from_memory(ROWS), seq_len=8)
    finally:
        decoder.lm_head.weight.data = kept


def test_masked_loss_equals_one_record_at_a_time(encoder, masking):
    texts = ["some words", "a", "", "and many many more words here"]
    found = masked_lm_loss(
        encoder,
        masking,
        from_memory(texts),
        seq_len=20,
        generator=torch.Generator().manual_seed(5),
        share=0.3,
    )
    generator = torch.Generator().manual_seed(5)
    losses = []
    for text in texts:
        body = letters(text)[:18]
        if not body:
            continue
        ids = torch.tensor([BOS, *body, SEP])
        places = torch.randperm(len(body), generator=generator)[: max(1, round(0.3 * len(body)))] + 1
        asked = ids.clone()
        asked[places] = MASK
        with torch.no_grad():
            log_shares = encoder(asked[None]).logits[0].double().log_softmax(-1)
        losses += (-log_shares[places, ids[places]]).tolist()
    assert found.tokens == len(losses) == 3 + 1 + 5
    assert found.samples == 3
    assert found.loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert found.pseudo_perplexity == pytest.approx(math.exp(found.loss))
    assert found.protocol["truncated"] == 1
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_masked_loss_reads_the_first_records_under_a_cap(encoder, masking):
    def loss(texts, **options):
        generator = torch.Generator().manual_seed(1)
        return masked_lm_loss(
            encoder, masking, from_memory(texts), seq_len=20, generator=generator, **options
        )

    capped = loss(["some words", "a few", "never read"], max_tokens=12 + 7 + 11)
    assert capped.samples == 2
    assert capped.loss == pytest.approx(loss(["some words", "a few"]).loss)
    assert loss(["some words", "a few"], max_tokens=1).samples == 1


def test_what_has_no_masked_loss(encoder, masking, causal):
    generator = torch.Generator()
    with pytest.raises(DataError, match="no mask token"):
        masked_lm_loss(encoder, causal, from_memory(["a"]), seq_len=8, generator=generator)
    with pytest.raises(DataError, match="tokenizer that is missing"):
        masked_lm_loss(encoder, None, from_memory(["a"]), seq_len=8, generator=generator)
    with pytest.raises(DataError, match=r"share 1\.5"):
        masked_lm_loss(encoder, masking, from_memory(["a"]), seq_len=8, generator=generator, share=1.5)
