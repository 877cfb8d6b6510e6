"""What a run costs over one plain forward pass of the same tokens, stage by stage: models of random weights.

python -m benchmarks.speed.cost [--case NAME ...] [--runs 5] [--device cuda] [--list]

Needs nothing but torch and transformers where --device is cuda. Cases that are not run keep their results.
"""

import argparse
import cProfile
import json
import pstats
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig, LlamaConfig

from benchmarks.speed import bare
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.allocate import Budget, published, uniform
from statprune.budget.cost import Cost
from statprune.budget.plan import Plan
from statprune.engine.backends import maker_of
from statprune.engine.refit import refit
from statprune.engine.stat import stat
from statprune.engine.trace import Trace

KEEP, BATCH_TOKENS = 0.5, 4096

GROUPS = {
    "sums": ("gram.py:update", "moments.py:update"),
    "factorisations": (
        "measure.py:factor_of",
        "measure.py:curve_of",
        "elimination.py:eliminate",
        "held_out.py:fit_consumer",
        "held_out.py:compensation",
        "refit.py:_adapt",
    ),
    "cuts": ("factor.py:interpolation", "cut.py:cut"),
    "carriers": ("carriers.py:_improve",),
    "allocation": ("allocate.py:published", "allocate.py:uniform"),
}
"""Functions, the outermost of which a part of the time is spent in; all else is walking through blocks."""


@dataclass(frozen=True)
class Case:
    """A model (hidden size, neurons, blocks, heads), its data (samples, tokens a sample), and a method."""

    shape: tuple[int, int, int, int]
    data: tuple[int, int]
    method: str = "stat"
    family: str = "llama"
    dtype: str = "float32"
    vocabulary: int = 4096
    grows: str = ""

    def model(self, device: str) -> Any:
        """Random weights, of a spread that keeps activations finite."""
        hidden, neurons, blocks, heads = self.shape
        common = {
            "hidden_size": hidden,
            "intermediate_size": neurons,
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "vocab_size": self.vocabulary,
        }
        length = max(512, self.data[1])
        with torch.device(device):
            if self.family == "bert":
                config: Any = BertConfig(**common, max_position_embeddings=length)
                model = AutoModelForSequenceClassification.from_config(config)
            else:
                config = LlamaConfig(**common, max_position_embeddings=length, dtype=self.dtype)
                model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, self.dtype))
        generator = torch.Generator(device).manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.02, generator=generator)
        return model.eval()

    def batches(self, device: str) -> list[dict[str, torch.Tensor]]:
        """Random tokens, none of them padding."""
        samples, length = self.data
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(5, self.vocabulary, (samples, length), generator=generator)
        return [
            {"input_ids": rows.to(device), "attention_mask": torch.ones_like(rows, device=device)}
            for rows in ids.split(max(1, BATCH_TOKENS // length))
        ]


def _llama(hidden: int, blocks: int, samples: int, length: int, **more: Any) -> Case:
    neurons = {256: 704, 4096: 11008, 5120: 13824}.get(hidden, hidden * 11 // 4)
    heads = max(1, hidden // (128 if hidden >= 2048 else 32))
    return Case((hidden, neurons, blocks, heads), (samples, length), **more)


CASES = {
    "bert-base, stat": Case((768, 3072, 12, 12), (512, 128), family="bert", vocabulary=30522),
    "bert-base, refit": Case((768, 3072, 12, 12), (512, 128), "refit", family="bert", vocabulary=30522),
    "llama 7M, stat": _llama(256, 8, 128, 256),
    "llama 7M, refit": _llama(256, 8, 128, 256, method="refit"),
    **{f"tokens {n * 256}": _llama(512, 4, n, 256, grows="tokens") for n in (8, 16, 32, 64, 128)},
    **{f"width {w}": _llama(w, 2, 32, 256, grows="width") for w in (256, 512, 1024, 2048)},
    **{f"depth {d}": _llama(512, d, 16, 256, grows="depth") for d in (2, 4, 8, 16)},
    "a block of 7B, stat": _llama(4096, 1, 8, 256, dtype="bfloat16"),
    "7B on a GPU, stat": _llama(4096, 32, 128, 2048, dtype="bfloat16", vocabulary=32000),
    "13B on a GPU, stat": _llama(5120, 40, 128, 2048, dtype="bfloat16", vocabulary=32000),
}
LONG = ("bert-base, refit", "a block of 7B, stat", "7B on a GPU, stat", "13B on a GPU, stat")
"""Run when they are asked for."""


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


@torch.no_grad()
def _forward(model: Any, batches: Sequence[dict[str, torch.Tensor]], device: str) -> float:
    model(**batches[0])
    _wait(device)
    started = perf_counter()
    for batch in batches:
        model(**batch)
    _wait(device)
    return perf_counter() - started


def run(case: Case, device: str) -> dict[str, Any]:
    """One run: the seconds of a forward pass, of the run, and of its parts.

    The forward pass is timed in two halves, one before the run and one after it, on a model made anew: a
    machine that grows slower or faster does so to both.
    """
    model, batches = case.model(device), case.batches(device)
    first, second = batches[: max(1, len(batches) // 2)], batches[len(batches) // 2 :]
    forward = _forward(model, first, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    profile, started = cProfile.Profile(), perf_counter()
    trace = profile.runcall(_compress, model, batches, case)
    _wait(device)
    seconds = perf_counter() - started
    # Kernels run behind the host on a GPU: only the whole is told there.
    parts = _parts(profile) if device == "cpu" else {}
    peak = None if device == "cpu" else torch.cuda.max_memory_allocated()
    del model
    forward += _forward(case.model(device), second, device)
    forward *= len(batches) / (len(first) + len(second))
    return {"forward": forward, "seconds": seconds, "parts": parts, "stages": trace.seconds, "peak": peak}


def _compress(model: Any, batches: list[dict[str, torch.Tensor]], case: Case) -> Trace:
    anatomy, trace = anatomy_of(model), Trace()
    kind = anatomy.entry.kind
    budget = Budget(KEEP, Cost("params", case.data[1]))
    if case.method == "refit":
        started = perf_counter()
        widths = {
            site.name: max(1, round(site.units * KEEP / budget.step(site))) * budget.step(site)
            if site.kind == "feed_forward"
            else max(1, round(site.units * KEEP))
            for site in anatomy.sites
        }
        refit(model, anatomy, batches, Plan(widths), trace)
        trace.seconds["refit"] = perf_counter() - started
        return trace

    def decide(curves: Any) -> Plan:
        if kind == "decoder":
            return uniform(curves, anatomy.sites, budget)
        return published(curves, anatomy.sites, budget, kind)

    stat(model, anatomy, batches, decide, maker_of(model, anatomy, batches), trace)
    return trace


def _parts(profile: cProfile.Profile) -> dict[str, float]:
    stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    named = {key: f"{key[0].rpartition('/')[2]}:{key[2]}" for key in stats}
    found = {}
    for part, names in GROUPS.items():
        group = {key for key, name in named.items() if name in names and "statprune" in key[0]}
        found[part] = sum(
            stats[key][3] - sum(from_[3] for caller, from_ in stats[key][4].items() if caller in group)
            for key in group
        )
    return found


def measured(name: str, runs: int, device: str) -> dict[str, Any]:
    case = CASES[name]
    done = []
    for _ in range(runs):
        done.append(run(case, device))
        print(f"{name}: {done[-1]['seconds'] / done[-1]['forward']:.2f} forward passes", flush=True)
    ratios = sorted(each["seconds"] / each["forward"] for each in done)
    middle = {
        part: median(each["parts"][part] / each["forward"] for each in done) for part in done[0]["parts"]
    }
    return {
        "case": name,
        "shape": list(case.shape),
        "method": case.method,
        "dtype": case.dtype,
        "tokens": case.data[0] * case.data[1],
        "length": case.data[1],
        "grows": case.grows,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "forward": median(each["forward"] for each in done),
        "seconds": median(each["seconds"] for each in done),
        "ratio": median(ratios),
        "least": ratios[0],
        "most": ratios[-1],
        "runs": runs,
        "parts": middle,
        "peak": done[-1]["peak"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="repeatable; else all short ones")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", help="write the rows to this file instead of the results")
    given = parser.parse_args()
    names = given.case or [name for name in CASES if name not in LONG]
    found = []
    for name in names:
        found.append(measured(name, given.runs, given.device))
        if given.rows or bare.WITHOUT_SCIPY:
            text = json.dumps(found, indent=1)
            print(text if given.rows is None else f"{len(found)} rows in {given.rows}", flush=True)
            if given.rows:
                with open(given.rows, "w", encoding="utf-8") as file:
                    file.write(text)
            continue
        from benchmarks.speed.report import keep, write  # noqa: PLC0415 - takes scipy's version, and matplotlib

        keep("cost", [found[-1]])
        write()


if __name__ == "__main__":
    main()
