"""The main job on a model that ships with the package: smaller, measured, and still telling stories."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from statprune.checkpoint.aside import check_output
from statprune.evaluation.continuation import continuation
from statprune.evaluation.perplexity import Perplexity
from statprune.evaluation.speed import tokens_per_second
from statprune.inputs import open_model
from statprune.measurement import require_free
from statprune.pipeline import compress
from statprune.planning import plan
from statprune.quality import evaluate

ASSETS = Path(str(files("statprune"))) / "assets"
MODEL = ASSETS / "stories260K"
CALIBRATION = ASSETS / "stories-calibration.jsonl"
EVALUATION = ASSETS / "stories-evaluation.jsonl"
SHARES = (0.95, 0.9, 0.75, 0.5)
SEQ_LEN = 256
OPENING = "Once upon a time, there was a little girl named Lily."
STORY_TOKENS = 120
BATCH, REPEATS = 16, 15


@dataclass(frozen=True)
class Row:
    """One model of the demonstration.

    `share` is that of the prunable projections' parameters kept; `prefill` the prompt tokens read per second
    in the fastest of the alternating runs, `speed_up` its ratio to the dense model's.
    """

    name: str
    share: float
    parameters: int
    perplexity: float
    prefill: float
    speed_up: float
    story: str
    folder: str | None
    seconds: float


@dataclass(frozen=True)
class Demonstration:
    """The rows, dense first, and the protocol of their perplexities and speeds."""

    rows: tuple[Row, ...]
    quality_protocol: dict[str, Any]
    speed_protocol: dict[str, Any]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)


def demonstrate(
    out: Path, *, shares: Sequence[float] = SHARES, say: Callable[[str], None] = lambda _: None
) -> Demonstration:
    """Compress the shipped model at each share into a new folder below `out`; measure and tell a story.

    Existing folders are left alone: a number is added to the new one's name.

    Raises:
        OutputError: no folder can be made there.
    """
    started = perf_counter()
    _require_room(out)
    opened = open_model(MODEL, device="cpu")
    models: dict[str, Any] = {"dense": opened.model}
    shared: dict[str, float] = {"dense": 1.0}
    folders: dict[str, str | None] = {"dense": None}
    spent = {"dense": 0.0}
    with TemporaryDirectory() as scratch:
        measured = Path(scratch) / "measurement"
        say("measuring, once for every share ...")
        plan(MODEL, data=str(CALIBRATION), out=measured, seq_len=SEQ_LEN, device="cpu", latency=False)
        for keep in shares:
            name = f"keep {keep:g}"
            say(f"compressing, {name} ...")
            began = perf_counter()
            folder = _free(out / f"stories260K-keep-{keep:g}")
            out.mkdir(parents=True, exist_ok=True)
            result = compress(measured=measured, out=folder, keep=keep, device="cpu")
            models[name], shared[name] = result.model, result.record["cost"]["params"]["share"]
            folders[name], spent[name] = str(folder), perf_counter() - began
    say("evaluating ...")
    quality = {name: _perplexity(model, opened.tokenizer) for name, model in models.items()}
    say("measuring speed ...")
    speeds = tokens_per_second(
        models,
        vocab_size=opened.model.config.vocab_size,
        batch=BATCH,
        seq_len=SEQ_LEN,
        generator=torch.Generator().manual_seed(0),
        repeats=REPEATS,
    )
    # The model is so small that another program's work shows: the fastest run of each says most.
    fastest = {name: min(speed.prefill_seconds) for name, speed in speeds.items()}
    rows = tuple(
        Row(
            name=name,
            share=shared[name],
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            perplexity=quality[name].perplexity,
            prefill=BATCH * SEQ_LEN / fastest[name],
            speed_up=fastest["dense"] / fastest[name],
            story=continuation(model, opened.tokenizer, OPENING, STORY_TOKENS),
            folder=folders[name],
            seconds=spent[name],
        )
        for name, model in models.items()
    )
    protocol = speeds["dense"].protocol | {
        "order": f"alternating; the fastest of {REPEATS} runs of each model"
    }
    return Demonstration(rows, quality["dense"].protocol, protocol, seconds=perf_counter() - started)


def _perplexity(model: Any, tokenizer: Any) -> Perplexity:
    measured = evaluate(model, data=str(EVALUATION), seq_len=SEQ_LEN, tokenizer=tokenizer)
    if not isinstance(measured, Perplexity):
        raise TypeError(f"a causal model is expected, not {type(model).__name__}")
    return measured


def _require_room(out: Path) -> None:
    """Raise OutputError where no folder can be made below `out`, before anything is measured."""
    if not out.is_dir():
        require_free(out)
    there = next(each for each in (out, *out.absolute().parents) if each.is_dir())
    check_output(_free(there / "stories260K"))


def _free(folder: Path) -> Path:
    candidate, number = folder, 2
    while candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate
