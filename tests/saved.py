"""Tiny models with a tokenizer in folders, and texts for them."""

import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.tiny import tiny_model

SPECIAL = ("<s>", "<pad>", "</s>", "<mask>", "<unk>")
"""Ids 0 to 4, where the tiny models expect them."""
LETTERS = "abcdefghijklmnopqrstuvwxyz .\n"
SHAPES = {"decoder": "<s> $A", "encoder": "<s> $A </s>"}


def letter_tokenizer(kind: str = "decoder") -> PreTrainedTokenizerFast:
    """One token a letter; a decoder's begins with <s>, an encoder's also ends with </s>."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *LETTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single=SHAPES[kind],
        pair=f"{SHAPES[kind]} $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if kind == "encoder":
        names |= {"mask_token": "<mask>", "sep_token": "</s>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def sentences(count: int = 40, seed: int = 0) -> list[str]:
    """Lines of 15 to 50 random letters, all different."""
    draw = random.Random(seed)
    return ["".join(draw.choices(LETTERS[:-1], k=draw.randint(15, 50))).strip() for _ in range(count)]


def save_tiny(folder: Path, model_type: str, *, head: str | None = None, **config: Any) -> PreTrainedModel:
    """A tiny model in `folder`, its tokenizer beside it."""
    model = tiny_model(model_type, head=head, **config)
    model.save_pretrained(folder)
    kind = "encoder" if "bert" in model_type else "decoder"
    letter_tokenizer(kind).save_pretrained(folder)
    return model
