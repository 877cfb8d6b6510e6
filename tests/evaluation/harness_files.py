"""Task files in the harness's format, with data of their own in the shapes of HellaSwag, ARC and WikiText."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HELLASWAG = """
task: {prefix}hellaswag
dataset_path: json
dataset_kwargs:
  data_files: {{validation: "{data}"}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{activity_label}}}}: {{{{ctx_a}}}} {{{{ctx_b.capitalize()}}}}"
doc_to_choice: "{{{{endings}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.5}}
"""
ARC = """
task: {prefix}arc
dataset_path: json
dataset_kwargs:
  data_files: {{test: "{data}", train: "{data}"}}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices.text}}}}"
doc_to_target: "{{{{choices.label.index(answerKey)}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.0}}
"""
WIKITEXT = """
task: {prefix}wikitext
dataset_path: json
dataset_kwargs:
  data_files: {{test: "{data}"}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{page}}}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
metadata: {{version: 3.0}}
"""
GROUP = """
group: {prefix}both
task: [{prefix}hellaswag, {prefix}arc]
aggregate_metric_list:
  - {{metric: acc, aggregation: mean, weight_by_size: true}}
metadata: {{version: 4.0}}
"""
FORMS = {"hellaswag": HELLASWAG, "arc": ARC, "wikitext": WIKITEXT, "both": GROUP}

Rows = dict[str, list[dict[str, Any]]]


def write_tasks(folder: Path, texts: Sequence[str], prefix: str = "own_") -> Rows:
    """Task files in `folder` with data beside them: of each text, its end among ends of others."""
    rows = _rows(texts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, form in FORMS.items():
        data = folder / f"{name}.jsonl"
        if name in rows:
            data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
        (folder / f"{name}.yaml").write_text(form.format(prefix=prefix, data=data))
    return rows


def questions(rows: Rows, task: str) -> list[tuple[str, list[str], int]]:
    """What a task asks, written by hand: text, choices, and which is right."""
    if task == "hellaswag":
        return [
            (
                f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}",
                row["endings"],
                int(row["label"]),
            )
            for row in rows[task]
        ]
    return [
        (
            f"Question: {row['question']}\nAnswer:",
            row["choices"]["text"],
            row["choices"]["label"].index(row["answerKey"]),
        )
        for row in rows[task]
    ]


def _rows(texts: Sequence[str]) -> Rows:
    draw = random.Random(0)
    parts = [_thirds(text) for text in texts]
    rows: Rows = {"hellaswag": [], "arc": [], "wikitext": [{"page": text} for text in texts]}
    for number, (first, second, end) in enumerate(parts):
        others = [part[2] for part in parts[:number] + parts[number + 1 :]]
        for name, count in (("hellaswag", 4), ("arc", 3 + number % 2)):
            right = draw.randrange(count)
            choices = draw.sample(others, count - 1)
            choices.insert(right, end)
            labels = "ABCD"[:count]
            rows[name].append(
                {
                    "activity_label": "story",
                    "ctx_a": first,
                    "ctx_b": second,
                    "endings": choices,
                    "label": str(right),
                }
                if name == "hellaswag"
                else {
                    "question": f"{first} {second}",
                    "choices": {"text": choices, "label": list(labels)},
                    "answerKey": labels[right],
                }
            )
    return rows


def _thirds(text: str) -> tuple[str, str, str]:
    words = text.split()
    one, two = len(words) // 3, 2 * len(words) // 3
    return " ".join(words[:one]), " ".join(words[one:two]), " ".join(words[two:])
