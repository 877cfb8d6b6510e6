"""Small data in the formats of the tasks, and how a model sees one example alone."""

import json
import random
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
from pyarrow import csv, parquet
from torch import Tensor

from statprune.evaluation.tasks import Task
from tests.saved import LETTERS

Row = dict[str, Any]


def phrase(draw: random.Random, longest: int = 20) -> str:
    """Letters and spaces, some of them."""
    return "a" + "".join(draw.choices(LETTERS[:27], k=draw.randint(2, longest))).strip()


def labelled(task: Task, count: int = 24, seed: int = 0) -> list[Row]:
    """Rows of GLUE in its columns: random texts, random labels, every label at least once."""
    draw = random.Random(seed)
    classes = len(task.label_names)
    rows = []
    for number in range(count):
        row: Row = {name: phrase(draw) for name in task.columns}
        drawn = draw.randrange(classes) if classes else 0
        row["label"] = (number if number < classes else drawn) if classes else round(draw.uniform(0, 5), 2)
        rows.append(row | {"idx": number})
    return rows


def asked(count: int = 12, seed: int = 0, *, some_without: bool = False) -> list[Row]:
    """Rows of SQuAD as the hub has them, with contexts of one window and of several."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        context = " ".join(["abc defg", *(phrase(draw) for _ in range(draw.randint(1, 6)))])
        starts = [] if some_without and number % 3 == 0 else sorted(draw.sample(range(len(context) - 6), 2))
        texts = [context[start : start + draw.randint(1, 6)] for start in starts]
        answers = {"text": texts, "answer_start": starts}
        question = f" {phrase(draw, 10)}"
        rows.append(
            {"id": f"q{number}", "title": "t", "context": context, "question": question, "answers": answers}
        )
    return rows


def nested(rows: list[Row]) -> dict[str, Any]:
    """The same as SQuAD's own download has it: two questions a paragraph at most, one article a paragraph."""
    articles = []
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        question = {"id": row["id"], "question": row["question"], "answers": answers}
        paragraph = {"context": row["context"], "qas": [question]}
        articles.append({"title": row["title"], "paragraphs": [paragraph]})
    return {"version": "v2.0", "data": articles}


def in_every_format(rows: list[Row], folder: Path) -> dict[str, Any]:
    """Rows of flat columns as every kind of source that is read without the hub."""
    table = pa.Table.from_pylist(rows)
    hub = datasets.Dataset.from_list(rows)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rows.json").write_text(json.dumps(rows))
    csv.write_csv(table, folder / "rows.csv")
    csv.write_csv(table, folder / "rows.tsv", csv.WriteOptions(delimiter="\t"))
    parquet.write_table(table, folder / "rows.parquet")
    datasets.DatasetDict({"validation": hub, "train": hub.select([0])}).save_to_disk(folder / "saved")
    (folder / "split").mkdir()
    (folder / "split" / "validation-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    (folder / "split" / "validation-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[5:]))
    (folder / "split" / "train.jsonl").write_text(json.dumps(rows[0]) + "\n")
    names = ("rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet", "saved", "split")
    return {name: str(folder / name) for name in names} | {"list": rows, "data set": hub}


@torch.no_grad()
def alone(model: Any, tokenizer: Any, *texts: str, longest: int = 10**6) -> Any:
    """The model's output for one example, without padding."""
    made = tokenizer(*texts, truncation=longest < 10**6, max_length=longest, return_tensors="pt")
    return model(input_ids=made["input_ids"])


def accuracy(predicted: list[int], labels: list[int]) -> float:
    return 100 * sum(left == right for left, right in zip(predicted, labels, strict=True)) / len(labels)


def f1(predicted: list[int], labels: list[int]) -> float:
    both = sum(left == right == 1 for left, right in zip(predicted, labels, strict=True))
    return 100 * 2 * both / (predicted.count(1) + labels.count(1))


def matthews(predicted: list[int], labels: list[int]) -> float:
    """Of two classes the same as Pearson's correlation; 0 where all predictions are one."""
    return pearson(predicted, labels) if len(set(predicted)) > 1 else 0.0


def pearson(left: Any, right: Any) -> float:
    x, y = (torch.tensor(values, dtype=torch.float64) for values in (left, right))
    return 100 * float(torch.corrcoef(torch.stack([x, y]))[0, 1])


def ranks(values: Any) -> Tensor:
    """Ranks from 1, those of equal values averaged."""
    x = torch.tensor(values, dtype=torch.float64)
    return ((x[:, None] > x).sum(1) + (x[:, None] >= x).sum(1) + 1) / 2
