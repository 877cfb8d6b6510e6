"""Run by torchrun in several processes: compress tiny models together; the first writes what came out.

torchrun --standalone --nproc-per-node=N ranked.py FOLDER [CASE ...]
"""

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
from statprune.anatomy.ranks import Ranks
from statprune.checkpoint.unfinished import digest_tensors
from statprune.errors import StatpruneError
from tests.tiny import tiny_batch, tiny_model


def batches(model: PreTrainedModel, *sizes: tuple[int, int]) -> list[dict[str, Tensor]]:
    """Batches of (rows, length); of encoders every third row is padded."""
    made = [tiny_batch(model, rows=rows, length=length, seed=n) for n, (rows, length) in enumerate(sizes)]
    for batch in made if model.config.model_type == "bert" else ():
        batch["attention_mask"][::3, -5:] = 0
    return made


FEW = ((8, 24), (7, 24), (4, 16))
"""An uneven number of samples, fewer batches than the samples need."""

SHORT = ((20, 24), (17, 24), (9, 16))
"""So few tokens that fits of a classifier see spliced samples besides."""

MANY = ((64, 64),) * 9
"""More tokens than `share.EXACT`: whole batches, products in float32; carriers are fitted."""


def case(family: str, method: str, sizes: Any = FEW, **options: Any) -> Callable[[Ranks], Any]:
    """A run with these options; `config`, `head` and `dtype` are the model's."""

    def run(ranks: Ranks, **more: Any) -> Any:
        said = dict(options)
        model = tiny_model(family, head=said.pop("head", None), **said.pop("config", {}))
        model = model.to(said.pop("dtype", torch.float32))
        given = {"keep": 0.6, "data": batches(model, *sizes), "method": method, **said, **more}
        return statprune.compress(model, ranks=ranks, **given)

    return run


CASES: dict[str, Callable[..., Any]] = {
    f"{family}, {method}": case(family, method)
    for family in ("llama", "bert", "gpt2", "mixtral", "bart")
    for method in ("refit", "stat")
} | {
    "one batch": case("llama", "refit", ((9, 24),)),
    "carriers": case("llama", "refit", ((48, 64), (50, 64))),
    "carriers of a bert": case("bert", "refit", ((48, 64), (50, 64))),
    "float64": case("llama", "refit", dtype=torch.float64),
    "a class": case("bert", "refit", head="BertForSequenceClassification"),
    "spliced samples": case("bert", "refit", SHORT, head="BertForSequenceClassification"),
    "tall QR": case("llama", "stat", backend="qr"),
    "experts, tall QR": case("mixtral", "stat", backend="qr"),
    "gaussian sketch": case("bert", "stat", backend="gaussian"),
    "count sketch": case("llama", "stat", backend="countsketch"),
    "search": case("llama", "refit", search=True),
    "a plan": case("llama", "stat", keep=None, plan={"blocks.0.feed_forward": 13, "blocks.1.attention": 1}),
    "narrow values": case("llama", "refit", value_dim=3),
    "narrow values of a bert": case("bert", "refit", ((48, 64), (50, 64)), value_dim=3),
    "many tokens": case("llama", "refit", MANY),
    "many tokens, stat": case("gpt2", "stat", MANY),
    "many tokens, biases": case("gpt2", "refit", MANY),
    "bfloat16's rounding": case("gpt2", "refit", MANY, config={"n_embd": 64, "n_inner": 80}),
}


class StoppedError(Exception):
    """Someone has stopped the run."""


RESUMED = {"resume": ("refit", "stat"), "resume, offloaded": ("refit", "stat")}
"""Methods of the runs that are stopped and go on; the offloaded ones need a Llama in the folder."""


def offloaded(source: Path, method: str) -> Callable[..., Any]:
    """A run with its blocks on disk; of the case of a Llama in memory, with this method."""

    def run(ranks: Ranks, **more: Any) -> Any:
        given = {"keep": 0.6, "data": batches(tiny_model("llama"), *FEW), "method": method, **more}
        return statprune.compress(source, ranks=ranks, offload=True, **given)

    return run


def stopped_and_resumed(run: Callable[..., Any], out: Path) -> str:
    """Stop a run at the first rank behind its fourth block, go on with it; what the others were told."""
    done, told = [], ""

    def stop(*_: Any) -> None:
        done.append(1)
        if len(done) == 5:  # one of them is the preparation
            raise StoppedError

    try:
        with statprune.together(timeout=60) as ranks:
            run(ranks, out=out, progress=stop)
    except StoppedError:
        told = "stopped"
    except StatpruneError as error:
        told = f"{type(error).__name__}: {error}"
    with statprune.together(timeout=60) as ranks:
        run(ranks, out=out, resume=True)
    return told


def main() -> None:
    """Run the cases named, or all, and those that are stopped and go on."""
    folder, names = Path(sys.argv[1]), sys.argv[2:] or [*CASES, "resume"]
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    with statprune.together(timeout=60) as ranks:
        for name in (each for each in names if each not in RESUMED):
            result = CASES[name](ranks)
            digest = sha256()
            digest_tensors(digest, result.model.state_dict())
            (folder / f"{name}-{rank}.txt").write_text(digest.hexdigest())
            if rank == 0:
                torch.save((result.model.state_dict(), result.record), folder / f"{name}.pt")
    for name in (each for each in names if each in RESUMED):
        for method in RESUMED[name]:
            run = offloaded(folder / "llama", method) if "offloaded" in name else CASES[f"llama, {method}"]
            told = stopped_and_resumed(run, folder / f"{name}, {method}")
            (folder / f"{name}, {method}-{rank}.txt").write_text(told)


if __name__ == "__main__":
    main()
