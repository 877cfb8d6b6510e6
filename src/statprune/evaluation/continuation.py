"""How a decoder goes on with a text: greedy, so that two models can be read side by side."""

from typing import Any

import torch
from transformers import PreTrainedModel


def continuation(model: PreTrainedModel, tokenizer: Any, prompt: str, tokens: int) -> str:
    """The prompt and what the model writes behind it: at each step the most probable token.

    Args:
        model: a decoder with its language-modelling head.
        tokenizer: its own.
        prompt: text of at least one token.
        tokens: how many are written, at most; it ends where the model ends.
    """
    ids = tokenizer(prompt, return_tensors="pt").input_ids.to(model.device)
    padding = tokenizer.pad_token_id
    with torch.no_grad():
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0 if padding is None else padding,
        )
    return str(tokenizer.decode(written[0], skip_special_tokens=True)).strip()
