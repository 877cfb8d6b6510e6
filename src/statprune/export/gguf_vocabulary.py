"""A tokenizer -> what a GGUF file says of it, or why it cannot.

llama.cpp knows a tokenizer by names, not by its rules: `tokenizer.ggml.model` for the algorithm, and for
byte-level BPE `tokenizer.ggml.pre` for how text is split first. So rules are read from the tokenizer, and one
whose rules have no name is refused: a wrong name would split texts otherwise, and nothing would tell.
"""

import json
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from statprune.errors import ModelError
from statprune.export.gguf_pieces import BYTES, check_pieces, piece_scores, prefixes_space

PROBE = (
    "Hello world! I'm here, you've seen 3 or 1234567 of them;   it's  what we'll do.\n\n\tNaïve café: "
    "Привет, мир — 你好世界, 今日は 42% 🙂 x_y = f(a+b)/2 'S 'RE\n"
)
"""Text on which tokenizers are compared: languages, digits, contractions, blanks."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types of GGUF."""

_LEAVE_OUT = "With tokenizer=False (--no-tokenizer) the file is written without one."
_WORDS_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS_1 = _WORDS_3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Steps of the pre-tokenizer, whether merges are passed over for whole words -> name. Of names with the same
# rules, the one that asks for nothing else.
_PRE: dict[tuple[tuple[str, ...], bool], str] = {
    (("words",), False): "gpt-2",
    (("digit", "words"), False): "smollm",
    ((_WORDS_3, "bytes"), True): "llama-bpe",
    ((_WORDS_3, "bytes"), False): "dbrx",
    ((_WORDS_1, "bytes"), False): "qwen2",
    ((_TEKKEN, "bytes"), True): "tekken",
}


@dataclass(frozen=True)
class Vocabulary:
    """All that a GGUF file says of a tokenizer."""

    model: str
    """`gpt2` for byte-level BPE, `llama` for SentencePiece."""
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...] | None
    merges: tuple[str, ...] | None
    special: dict[str, int]
    """Ids by name: bos, eos, and where there are any unk and pad."""
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool | None
    chat_template: str | None
    notes: tuple[str, ...] = ()


def vocabulary_of(tokenizer: Any, model: PreTrainedModel) -> Vocabulary:
    """What a GGUF file says of `tokenizer`, a token for every row of the embedding of `model`.

    Raises:
        ModelError: its rules have no name in llama.cpp.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise _refusal(f"{type(tokenizer).__name__} has no tokenizer.json, from which its rules are read")
    rules = json.loads(fast.to_str())
    core = rules["model"]
    if core["type"] != "BPE" or any(
        core.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    ):
        raise _refusal(f"its algorithm is {core['type']}; byte-level and SentencePiece BPE can be said")
    rows = model.get_input_embeddings().weight.shape[0]
    tokens, types = _tokens(fast, rules, rows)
    merges = [tuple(each.split(" ", 1)) if isinstance(each, str) else tuple(each) for each in core["merges"]]
    adds = _added(tokenizer)
    shared: dict[str, Any] = {
        "special": _special(tokenizer, model),
        "add_bos": adds[0],
        "add_eos": adds[1],
        "chat_template": _chat_template(tokenizer),
    }
    if core.get("byte_fallback"):
        prefix = prefixes_space(rules)
        if prefix is None:
            raise _refusal("its normalizer and pre-tokenizer do more than write spaces as ▁")
        scores = piece_scores(merges, tokens)
        types = [
            BYTE if token in BYTES else UNKNOWN if number == tokenizer.unk_token_id else kind
            for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        ]
        vocabulary = Vocabulary(
            "llama", "default", tuple(tokens), tuple(types), tuple(scores), None,
            add_space_prefix=prefix, **shared,
        )  # fmt: skip
        problem = check_pieces(tokens, scores, merges, tokenizer, PROBE, prefix=prefix)
        if problem is not None:
            raise _refusal(problem)
        return vocabulary
    return Vocabulary(
        "gpt2", _pre(rules), tuple(tokens), tuple(types), None, tuple(" ".join(pair) for pair in merges),
        add_space_prefix=None, notes=_normalizer_notes(rules), **shared,
    )  # fmt: skip


def _refusal(problem: str) -> ModelError:
    return ModelError(f"the tokenizer cannot be written as GGUF: {problem}. {_LEAVE_OUT}")


def _tokens(fast: Any, rules: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Every token and its type, by id; rows of the embedding that no token has are unused ones."""
    by_id = {number: token for token, number in fast.get_vocab(with_added_tokens=True).items()}
    if max(by_id) >= rows:
        raise _refusal(
            f"token {max(by_id)} ({by_id[max(by_id)]!r}) is beyond the {rows} rows of the embedding"
        )
    added = {each["id"]: each for each in rules["added_tokens"]}
    tokens, types = [], []
    for number in range(rows):
        token = by_id.get(number)
        if token is None:
            token, kind = f"[PAD{number}]", UNUSED
        elif number in added:
            special = added[number]["special"]
            kind = CONTROL if special else USER_DEFINED
        else:
            kind = NORMAL
        tokens.append(token)
        types.append(kind)
    if len(set(tokens)) != len(tokens) or "" in tokens:
        raise _refusal("two ids have the same text, or one has none")
    return tokens, types


def _pre(rules: dict[str, Any]) -> str:
    """The name in llama.cpp of how text is split before it is merged."""
    split = rules["pre_tokenizer"] or {"type": "nothing"}
    steps = split["pretokenizers"] if split["type"] == "Sequence" else [split]
    key = (tuple(_step(step) for step in steps), bool(rules["model"].get("ignore_merges")))
    if (rules["normalizer"] or {"type": "NFC"})["type"] != "NFC" or key not in _PRE:
        raise _refusal(
            f"llama.cpp has no name, that is known here, for its pre-tokenizer {json.dumps(split)[:400]} "
            f"with ignore_merges={key[1]} and normalizer {json.dumps(rules['normalizer'])[:200]}; known are "
            f"{', '.join(_PRE.values())}"
        )
    return _PRE[key]


def _step(step: dict[str, Any]) -> str:
    """One step of a pre-tokenizer: its pattern, or a word for it; its JSON where it is another."""
    if step["type"] == "ByteLevel" and not step["add_prefix_space"]:
        return "words" if step["use_regex"] else "bytes"
    if step["type"] == "Digits" and step["individual_digits"]:
        return "digit"
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        return str(step["pattern"].get("Regex"))
    return json.dumps(step)


def _normalizer_notes(rules: dict[str, Any]) -> tuple[str, ...]:
    if rules["normalizer"] is None:
        return ()
    return ("llama.cpp does not normalise text (NFC): composed and decomposed letters are different to it.",)


def _added(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a text gets the first and the last special token."""
    plain = tokenizer("a b", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a b", add_special_tokens=True)["input_ids"]
    before = whole[:1] == [tokenizer.bos_token_id] and whole != plain
    after = whole[-1:] == [tokenizer.eos_token_id] and len(whole) == len(plain) + before + 1
    expected = [tokenizer.bos_token_id] * before + plain + [tokenizer.eos_token_id] * after
    if whole != expected:
        raise _refusal(f"'a b' becomes {whole}, which is more than {plain} between its first and last token")
    return before, after


def _special(tokenizer: Any, model: PreTrainedModel) -> dict[str, int]:
    """Ids of the special tokens: what is not said, llama.cpp takes from other models."""
    config: Any = model.config
    eos = tokenizer.eos_token_id
    if eos is None:
        named = config.eos_token_id
        eos = named[0] if isinstance(named, list | tuple) and named else named
    if eos is None:
        raise _refusal("it has no end-of-text token, and the config names none; set eos_token_id")
    bos = next((each for each in (tokenizer.bos_token_id, config.bos_token_id) if each is not None), eos)
    found = {"bos": bos, "eos": eos, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    return {name: int(number) for name, number in found.items() if number is not None}


def _chat_template(tokenizer: Any) -> str | None:
    template = getattr(tokenizer, "chat_template", None)
    return template if isinstance(template, str) else None
