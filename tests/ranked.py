"""Run by torchrun in several processes: compress tiny models together; the first writes what came out.

torchrun --standalone --nproc-per-node=N ranked.py FOLDER [CASE ...]
"""

import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import statprune
from statprune.anatomy.ranks import ALONE, Ranks
from statprune.checkpoint.unfinished import digest_tensors
from tests.tiny import tiny_batch, tiny_model


def batches(model: PreTrainedModel, *sizes: tuple[int, int]) -> list[dict[str, Tensor]]:
    """Batches of (rows, length); of encoders every third row is padded."""
    made = [tiny_batch(model, rows=rows, length=length, seed=n) for n, (rows, length) in enumerate(sizes)]
    for batch in made if model.config.model_type == "bert" else ():
        batch["attention_mask"][::3, -5:] = 0
    return made


FEW = ((8, 24), (7, 24), (4, 16))
"""An uneven number of samples, fewer batches than the samples need."""

MANY = ((64, 64),) * 9
"""More tokens than `share.EXACT`: whole batches, products in float32; carriers are fitted."""


def case(family: str, method: str, sizes: Any = FEW, dtype: str = "float32", **options: Any) -> Any:
    def run(ranks: Ranks) -> Any:
        head = options.pop("head", None)
        model = tiny_model(family, head=head).to(getattr(torch, dtype))
        given = {"keep": 0.6, "data": batches(model, *sizes), "method": method, **options}
        return statprune.compress(model, ranks=ranks, **given)

    return run


CASES: dict[str, Callable[[Ranks], Any]] = {
    f"{family}, {method}": case(family, method)
    for family in ("llama", "bert", "gpt2", "mixtral", "bart")
    for method in ("refit", "stat")
} | {
    "one batch": case("llama", "refit", ((9, 24),)),
    "carriers": case("llama", "refit", ((48, 64), (50, 64))),
    "carriers of a bert": case("bert", "refit", ((48, 64), (50, 64))),
    "float64": case("llama", "refit", dtype="float64"),
    "a score": case("bert", "refit", head="BertForSequenceClassification", num=None)
    if False
    else case("bert", "refit"),
    "tall QR": case("llama", "stat", backend="qr"),
    "experts, tall QR": case("mixtral", "stat", backend="qr"),
    "gaussian sketch": case("bert", "stat", backend="gaussian"),
    "count sketch": case("llama", "stat", backend="countsketch"),
    "search": case("llama", "refit", search=True),
    "a plan": case("llama", "stat", keep=None, plan={"blocks.0.feed_forward": 13, "blocks.1.attention": 1}),
    "many tokens": case("llama", "refit", MANY),
    "many tokens, stat": case("gpt2", "stat", MANY),
    "many tokens, biases": case("gpt2", "refit", MANY),
}


def found_by(name: str, ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and record of a case, the record without times."""
    result = CASES[name](ranks)
    record = json.loads(json.dumps(result.record))
    record["trace"].pop("seconds")
    return result.model.state_dict(), record


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(CASES)
    torch.set_num_threads(1)
    with statprune.together(timeout=60) as ranks:
        assert ranks is not ALONE
        for number, name in enumerate(names):
            weights, record = found_by(name, ranks)
            digest = sha256()
            digest_tensors(digest, weights)
            (folder / f"{number}-{ranks.rank}.txt").write_text(digest.hexdigest())
            if ranks.rank == 0:
                torch.save((name, weights, record), folder / f"{number}.pt")


if __name__ == "__main__":
    main()
