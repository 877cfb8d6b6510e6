"""Models of every type, pruned and saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny import MODEL_TYPES, tiny_batch, tiny_model, uneven_cut, uniform_cut
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.save import SavedFolder, save

CUTS: dict[str, Callable[[PreTrainedModel], PreTrainedModel]] = {
    "uniform": uniform_cut,
    "uneven": uneven_cut,
}
HEADS = {
    "bert": (
        "BertModel",
        "BertForSequenceClassification",
        "BertForQuestionAnswering",
        "BertForTokenClassification",
        "BertForMultipleChoice",
        "BertForPreTraining",
        "BertForNextSentencePrediction",
    ),
    "llama": ("LlamaModel", "LlamaForSequenceClassification"),
    "gpt2": ("GPT2Model",),
}
CASES = [(kind, None, cut) for kind in MODEL_TYPES for cut in CUTS] + [
    (kind, head, "uneven") for kind, heads in HEADS.items() for head in heads
]


class Case:
    """A pruned model, the folder it was saved to, and beside that what it computes."""

    def __init__(self, model_type: str, head: str | None, cut: str, root: Path) -> None:
        self.model = CUTS[cut](tiny_model(model_type, head=head))
        self.saved = write(self.model, root / f"{type(self.model).__name__}-{cut}")
        self.path = self.saved.path
        # What a fresh process needs to check it: how it is opened, its inputs and its outputs.
        self.opener = self.saved.how_to_load.split("AutoModel")[1].split(".")[0]
        torch.save([tiny_batch(self.model), outputs(self.model)], self.path.with_suffix(".pt"))


def write(model: PreTrainedModel, out: Path, **options: Any) -> SavedFolder:
    defaults = {"source": None, "tokenizer": None, "record": {"by": "a test"}}
    return save(model, anatomy_of(model), out, **{**defaults, **options})


@torch.no_grad()
def outputs(model: PreTrainedModel) -> dict[str, Tensor]:
    found = model(**tiny_batch(model)).items()
    return {name: value for name, value in found if isinstance(value, Tensor)}
