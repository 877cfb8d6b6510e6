"""RESULTS.md and its plot, from what the scripts of this folder have measured.

python -m benchmarks.speed.report
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.protocol import conditions, earlier, table

HERE = Path(__file__).parent
GPU_CASES = ("7B on a GPU, stat", "13B on a GPU, stat")
PARTS = {
    "walking": "blocks run, and all else",
    "sums": "Gram matrices and moments",
    "factorisations": "orders, curves, fits",
    "cuts": "interpolation and surgery",
    "carriers": "carriers",
    "allocation": "the plan",
}
Rows = list[dict[str, Any]]


def keep(name: str, rows: Rows, *, whole: bool = False) -> None:
    """Put rows beside those of other cases in NAME.json, or in place of all."""
    known = {} if whole else earlier(HERE / f"{name}.json")
    known |= {row["case"]: row | {"conditions": conditions()} for row in rows}
    text = json.dumps([*known.values()], indent=1) + "\n"
    (HERE / f"{name}.json").write_text(text, encoding="utf-8")


def read(name: str) -> Rows:
    """The rows of NAME.json."""
    return [*earlier(HERE / f"{name}.json").values()]


def write() -> None:
    """Write RESULTS.md, and the plot where there is something to draw."""
    rows = read("cost")
    grown = [row for row in rows if row["grows"]]
    if grown:
        _draw(grown)
    parts = [
        "# What runs cost",
        "Scripts of this folder print these numbers, on models of random weights, and write this page "
        "(`python -m benchmarks.speed.report`). Times are over one plain forward pass of the same tokens, "
        "timed half before and half after in the same process: median of the runs (least to most).",
        "## Over a plain forward pass\n\n" + _stages([row for row in rows if not row["grows"]]),
        "`python -m benchmarks.speed.cost --case ...`. Half of the parameters of each block are kept. Parts "
        "are medians, in forward passes too: " + "; ".join(f"{k}: {v}" for k, v in PARTS.items()) + ". "
        "Method stat chooses its plan in the run; method refit is timed with a plan given, equal in all "
        "blocks: what its survey takes is in benchmarks/quality/cost.md.",
        "## Growth\n\n" + _stages(grown) + "\n\n![Cost against tokens, width and depth](growth.svg)"
        if grown
        else "",
        _beside(read("published")),
        _gpu(rows),
        "## Memory\n\n[results/memory.md](../results/memory.md): runs with `--offload` beside the formula, "
        "one on a checkpoint of ten times its memory. [results/time-left.md](../results/time-left.md): time "
        "left as it is estimated during runs.",
        _protocol(rows),
    ]
    (HERE / "RESULTS.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _stages(rows: Rows) -> str:
    lines = []
    for row in (row for row in rows if row["device"] == "cpu"):
        hidden, neurons, blocks, _ = row["shape"]
        known = sum(row["parts"].values())
        shares = {"walking": row["ratio"] - known, **row["parts"]}
        lines.append(
            [
                row["case"],
                f"{hidden} x {neurons}, {blocks}",
                f"{row['tokens']:,}",
                f"{row['dtype']}, {row['threads']}",
                f"{row['forward']:.1f} s",
                f"{row['seconds']:.1f} s",
                f"**{row['ratio']:.2f}** ({row['least']:.2f} to {row['most']:.2f}; {row['runs']})",
                *(f"{shares[part]:.2f}" for part in PARTS),
            ]
        )
    head = ["case", "hidden x neurons, blocks", "tokens", "dtype, threads", "forward", "run"]
    return table([*head, "over forward (runs)", *PARTS], lines)


def _beside(rows: Rows) -> str:
    if not rows:
        return ""
    ours, published = (sum(row[who] for row in rows) for who in ("ours", "published"))
    lines = [
        [
            row["case"],
            str(row["columns"]),
            f"{row['published']:.1f} s",
            f"{row['ours']:.2f} s",
            f"{row['published'] / row['ours']:.1f}",
            f"{row['same']} of {row['of']}",
        ]
        for row in rows
    ]
    lines.append(["all", "", f"{published:.1f} s", f"{ours:.2f} s", f"**{published / ours:.1f}**", ""])
    head = ["site", "columns", "scipy's pivoted QR", "ours", "times", "same units chosen"]
    return (
        "## Beside the published procedure\n\n"
        + table(head, lines)
        + f"\n\n`python -m benchmarks.speed.published`: BERT-base, {rows[0]['tokens']:,} tokens, "
        f"{rows[0]['threads']} threads; the protocol is in the script. Goal: 10."
    )


def _gpu(rows: Rows) -> str:
    lines = []
    for name in GPU_CASES:
        row = next((row for row in rows if row["case"] == name and row["device"] != "cpu"), None)
        if row is None:
            lines.append([name, "not measured: no GPU was at hand", "", "", ""])
            continue
        peak = f"{row['peak'] / 2**30:.1f} GiB"
        lines.append(
            [name, row["device"], f"{row['forward']:.1f} s", f"{row['seconds']:.0f} s", peak],
        )
    return "## On a GPU\n\n" + table(["case", "device", "forward", "run", "peak memory"], lines)


def _protocol(rows: Rows) -> str:
    found = {json.dumps(row["conditions"], sort_keys=True): row["conditions"] for row in rows}
    told = [", ".join(f"{name} {value}" for name, value in each.items()) for each in found.values()]
    return (
        "## Protocol\n\nRandom tokens, none of them padding, in batches of 4,096; weights from a normal "
        "distribution of spread 0.02, seed 0; eager start, a first batch warms up. " + "; ".join(told) + "."
    )


def _draw(rows: Rows) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - not among what the tests install

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "statprune"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    kinds = list(dict.fromkeys(row["grows"] for row in rows))
    figure, axes = plt.subplots(1, len(kinds), figsize=(4 * len(kinds), 3), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        own = [row for row in rows if row["grows"] == kind]
        x = [_grown(row, kind) for row in own]
        middle = [row["ratio"] for row in own]
        spread: Sequence[Sequence[float]] = [
            [row["ratio"] - row["least"] for row in own],
            [row["most"] - row["ratio"] for row in own],
        ]
        axis.errorbar(x, middle, yerr=spread, marker="o", capsize=3)
        axis.set_xscale("log", base=2)
        axis.set_xticks(x, [f"{each:,}" for each in x], rotation=30)
        axis.set_xlabel({"tokens": "tokens", "width": "hidden size", "depth": "blocks"}[kind])
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("forward passes")
    figure.tight_layout()
    figure.savefig(HERE / "growth.svg", metadata={"Date": None})
    plt.close(figure)


def _grown(row: dict[str, Any], kind: str) -> int:
    hidden, _, blocks, _ = row["shape"]
    return int({"tokens": row["tokens"], "width": hidden, "depth": blocks}[kind])


if __name__ == "__main__":
    write()
