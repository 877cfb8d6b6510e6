"""A tiny classifier, and texts with the labels that it gives them itself: it scores 100, and can fall."""

import json
from pathlib import Path
from typing import Any

import torch

import statprune
from tests.saved import letter_tokenizer, sentences
from tests.tiny import tiny_model

HEADS = {"bert": "BertForSequenceClassification", "llama": "LlamaForSequenceClassification"}
OPTIONS: dict[str, Any] = {"samples": 24, "seq_len": 32, "multiple": 4}


def classifier(family: str = "bert", **config: Any) -> Any:
    return tiny_model(family, head=HEADS[family], num_labels=2, intermediate_size=64, **config)


@torch.no_grad()
def labelled_by(model: Any, count: int = 200) -> list[dict[str, Any]]:
    """Rows of glue/sst2: about half of them in each class, by a shift of the model's bias, if it has one."""
    tokenizer = letter_tokenizer("encoder" if "bert" in model.config.model_type else "decoder")
    lines = sentences(count, seed=5)
    logits = [model(input_ids=torch.tensor([tokenizer(line)["input_ids"]])).logits[0] for line in lines]
    gap = torch.stack([each[1] - each[0] for each in logits])
    bias = getattr(getattr(model, "classifier", None), "bias", None)
    if bias is not None:
        # About half of the rows, and no row so near that rounding decides about it.
        near = gap.sort().values[2 * count // 5 : 3 * count // 5]
        widest = int(near.diff().argmax())
        middle = near[widest : widest + 2].mean()
        bias[0] += middle
        gap -= middle
    return [{"sentence": line, "label": int(each > 0)} for line, each in zip(lines, gap, strict=True)]


def calibration() -> list[str]:
    return sentences(60, seed=1)


def smallest(model: Any, rows: Any, max_drop: float = 5.0, **options: Any) -> statprune.Gated:
    tokenizer = letter_tokenizer("encoder" if "bert" in model.config.model_type else "decoder")
    given = {"data": calibration(), "tokenizer": tokenizer, **OPTIONS, **options}
    return statprune.smallest(
        model, **{"task": "glue/sst2", "task_data": rows, "max_drop": max_drop, **given}
    )


def saved_world(folder: Path) -> dict[str, Path]:
    """The classifier, its calibration texts and its validation rows, in files."""
    model = classifier()
    rows = labelled_by(model)
    model.save_pretrained(folder / "model")
    letter_tokenizer("encoder").save_pretrained(folder / "model")
    (folder / "train.jsonl").write_text(
        "".join(json.dumps({"sentence": line, "label": 0}) + "\n" for line in calibration())
    )
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: folder / name for name in ("model", "train.jsonl", "validation.jsonl")}
