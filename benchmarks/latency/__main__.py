"""Speed-up of a forward pass against the share of block parameters kept, on two cores.

    python -m benchmarks.latency [--shape BERT-base] [--dtype float32] [--batch 1 --seq-len 512 --repeats 7]

Weights are random; models are narrowed without calibration, which speed does not depend on. All models of a
shape and type run in alternation.
"""

import argparse
import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.latency.shapes import SHAPES, WIDTHS, narrowed, plan_of
from benchmarks.protocol import table, write
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.cost import Cost, macs_of_pass
from statprune.evaluation.devices import evaluating
from statprune.evaluation.random_inputs import random_inputs
from statprune.evaluation.speed import prefill_seconds, take_turns, waiting

KEEP = (0.875, 0.75, 0.625, 0.5)
DTYPES = ("float32", "bfloat16")
GOAL = 1.6
SEED = 0
PLOT = Path(__file__).with_name("speed-up.svg")


def measured(shape: str, dtype: str, batch: int, seq_len: int, repeats: int) -> list[dict[str, Any]]:
    """A row for the dense model, and for every share and kind of widths."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(SEED)
        dense = SHAPES[shape]().to(getattr(torch, dtype)).eval()
    anatomy = anatomy_of(dense)
    models, plans = {("dense", 1.0): dense}, {}
    for widths in WIDTHS:
        for keep in KEEP:
            plan = plan_of(anatomy, keep, widths, SEED)
            models[widths, keep], plans[widths, keep] = narrowed(dense, plan), plan
    inputs = random_inputs(dense, batch, seq_len, torch.Generator().manual_seed(SEED))
    now = waiting(torch.device("cpu"))
    seconds = take_turns(
        {
            json.dumps(key): partial(prefill_seconds, model, inputs, model, now)
            for key, model in models.items()
        },
        repeats,
    )
    macs = macs_of_pass(anatomy, batch, [seq_len])
    params = Cost("params", 1)
    whole = median(seconds[json.dumps(("dense", 1.0))])
    rows = []
    for (widths, keep), model in models.items():
        sites, own = anatomy_of(model).sites, seconds[json.dumps((widths, keep))]
        rows.append(
            {
                "shape": shape,
                "dtype": dtype,
                "widths": widths,
                "keep": keep,
                "share": params.dense(sites) / params.dense(anatomy.sites),
                "macs": macs_of_pass(anatomy_of(model), batch, [seq_len]) / macs,
                "milliseconds": round(1000 * median(own), 2),
                "least": round(1000 * min(own), 2),
                "most": round(1000 * max(own), 2),
                "speed_up": whole / median(own),
                "plan": dict(plans[widths, keep].widths) if (widths, keep) in plans else None,
            }
        )
        print({name: value for name, value in rows[-1].items() if name != "plan"}, flush=True)
    with evaluating(dense):  # where the time of the dense model goes
        rows[0]["in_blocks"] = in_blocks(dense, inputs)
    return rows


def in_blocks(model: Any, inputs: dict[str, torch.Tensor]) -> float:
    """The share of a forward pass that torch spends in matrix products of the projections."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(**inputs)
    events = profile.key_averages()
    products = sum(e.self_cpu_time_total for e in events if e.key in ("aten::addmm", "aten::mm"))
    return products / sum(e.self_cpu_time_total for e in events)


def report(rows: list[dict[str, Any]], protocol: dict[str, Any], name: str) -> None:
    pieces, goals = [], []
    for shape, dtype in dict.fromkeys((row["shape"], row["dtype"]) for row in rows):
        own = [row for row in rows if (row["shape"], row["dtype"]) == (shape, dtype)]
        told = []
        for widths in WIDTHS:
            cells = [row for row in own if row["widths"] == widths]
            told.append(
                [widths, *(f"{row['speed_up']:.2f} x ({row['milliseconds']:.0f} ms)" for row in cells)]
            )
            if widths in ("uniform", "per-layer"):
                last = cells[-1]
                met = "met" if last["speed_up"] >= GOAL else "missed"
                goals.append(f"- {shape}, {dtype}, {widths}: {last['speed_up']:.2f} x at half, {met}")
        dense = own[0]
        pieces.append(
            f"**{shape}, {dtype}**, dense {dense['milliseconds']:.0f} ms ({dense['least']:.0f} to "
            f"{dense['most']:.0f}), {dense['in_blocks']:.0%} of it in products of weights.\n\n"
            + table(["widths", *(f"{keep:g}" for keep in KEEP)], told)
        )
        shares = {row["keep"]: row["macs"] for row in own if row["widths"] == "uniform"}
        pieces.append("Share of MACs, uniform: " + ", ".join(f"{share:.3f}" for share in shares.values()))
    pieces.append(f"Goal: {GOAL} x at half of the block parameters\n\n" + "\n".join(goals))
    write(name, "Speed-up against the share kept", protocol, "\n\n".join(pieces), rows)


def plot(rows: list[dict[str, Any]]) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415 - not everyone has it

    panels = list(dict.fromkeys((row["shape"], row["dtype"]) for row in rows))
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.2), sharey=True, squeeze=False)
    for axis, (shape, dtype) in zip(axes[0], panels, strict=True):
        for widths in WIDTHS:
            own = [
                (row["share"], row["speed_up"])
                for row in rows
                if (row["shape"], row["dtype"]) == (shape, dtype) and row["widths"] in ("dense", widths)
            ]
            axis.plot(*zip(*own, strict=True), marker="o", markersize=3, label=widths)
        axis.axhline(GOAL, color="grey", linewidth=0.6)
        axis.set(title=f"{shape}, {dtype}", xlabel="share of block parameters kept")
        axis.invert_xaxis()
    axes[0][0].set_ylabel("speed-up of a forward pass")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="latency", help="of the files in results/")
    parser.add_argument(
        "--otherwise", default="idle", help="what else the machine does; goes into the protocol"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    protocol = {
        "models": "random weights; BERT-base with a classifier, Llama with logits of the last token",
        "widths": f"uniform, or drawn block by block with seed {SEED}; the same block parameters in all",
        "input": f"batch {given.batch} x {given.seq_len} random tokens, no padding",
        "order": f"all models of a shape and type in turn, medians of {given.repeats} runs after one",
        "columns": "share of the parameters of the attention and MLP projections",
        "machine otherwise": given.otherwise,
    }
    rows = []
    for shape in given.shape or ("BERT-base", "Llama 100M"):
        for dtype in given.dtype or DTYPES:
            rows += measured(shape, dtype, given.batch, given.seq_len, given.repeats)
            report(rows, protocol, given.name)  # what there is so far, should it be stopped
    if given.name == "latency" and find_spec("matplotlib"):
        plot(rows)


if __name__ == "__main__":
    main()
