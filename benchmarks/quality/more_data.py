"""Does more calibration data ever hurt? Method refit from 64 to 4,096 samples.

    STATPRUNE_SHARED=... python -m benchmarks.quality.more_data [--subject NAME ...] [--samples N ...]

Writes more-data.md, which RESULTS.md includes. With --max-memory hidden states lie in files, and the model is
the same one: in memory 4,096 windows of wiki-llama-7m take more than 19 GB.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import statprune
from benchmarks.protocol import rows_of, table
from benchmarks.quality.report import HERE, METRICS
from benchmarks.quality.subjects import Subject, subjects
from statprune.calibration.batches import Batch
from statprune.inputs import open_model

RESULTS = HERE / "more-data.jsonl"
SAMPLES = (64, 256, 1024, 4096)
KEEP = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finetuned", type=Path)
    parser.add_argument("--subject", nargs="+", default=["stories260K", "stsb-cosine", "wiki-llama-7m"])
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-memory", help="bytes that a run may take, as in 16GB")
    given = parser.parse_args()
    rows = rows_of(RESULTS)
    known = subjects(given.finetuned)
    for name in given.subject:
        subject = known[name]()
        opened = subject.open()
        dense = subject.judge(opened.model.eval(), opened.tokenizer)
        for samples in given.samples:
            for seed in given.seed:
                if any((row["subject"], row["asked"], row["seed"]) == (name, samples, seed) for row in rows):
                    continue
                drawn = replace(subject, samples=samples).draw(opened, samples, seed)
                model = compressed(subject, drawn.batches, given.max_memory)
                found = subject.judge(model, opened.tokenizer)
                damage = {key: subject.damage(dense[key], value) for key, value in found.items()}
                row = {"subject": name, "asked": samples, "seed": seed, "tokens": drawn.tokens}
                rows.append(row | {"samples": drawn.protocol["samples"], "damage": damage})
                print(rows[-1], flush=True)
                RESULTS.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    write(rows)


def compressed(subject: Subject, batches: list[Batch], max_memory: str | None) -> Any:
    """The model at KEEP."""
    options: dict[str, Any] = {"data": batches, "keep": KEEP, "of": subject.of}
    if max_memory is None:
        return statprune.compress(subject.open().model, **options).model
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        statprune.compress(subject.folder, out=out, offload=True, max_memory=max_memory, **options)
        return open_model(out, device="cpu").model


def write(rows: list[dict[str, Any]]) -> None:
    asked = sorted({row["asked"] for row in rows})
    lines = []
    for name in dict.fromkeys(row["subject"] for row in rows):
        metrics = [METRICS[name]] if name in METRICS else ["WikiText-2", "C4"]
        for metric in metrics:
            cells = []
            for samples in asked:
                found = sorted(
                    row["damage"][metric] for row in rows if (row["subject"], row["asked"]) == (name, samples)
                )
                spread = f" ({found[0]:.3f} to {found[-1]:.3f})" if len(found) > 1 else ""
                cells.append(f"{median(found):.3f}{spread}" if found else "")
            lines.append([name, metric, *cells])
    text = (
        f"## More data\n\nMethod refit at keep {KEEP:g}, damage by calibration samples, median (least to "
        "most) of the seeds. `python -m benchmarks.quality.more_data`\n\n"
        + table(["model", "metric", *(str(samples) for samples in asked)], lines)
        + "\n"
    )
    print(text)
    (HERE / "more-data.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
