"""A run that fails leaves the model as it was, and nothing on disk; one that succeeds, the mode it was in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import statprune
from statprune import pipeline
from statprune.anatomy.lookup import anatomy_of
from statprune.engine.progress import NOTHING, Facts
from statprune.errors import NonFiniteError, OutputError, VerificationError
from tests.saved import letter_tokenizer, save_tiny, sentences
from tests.test_pipeline import same_weights
from tests.tiny import tiny_batch, tiny_model

HUGE = {
    "llama": "mlp.up_proj",
    "gpt2": "mlp.c_fc",
    "bert": "attention.output.dense",
}
BUDGETS: list[dict[str, Any]] = [
    {"keep": 0.5, "widths": "uniform"},
    {"keep": 0.5, "widths": "per-layer"},
    # With a plan, block 0 is cut before the data reaches block 1.
    {"plan": {"blocks.0.feed_forward": 8, "blocks.1.feed_forward": 8, "blocks.2.attention": 1}},
]


def overflowing(model: PreTrainedModel, family: str) -> PreTrainedModel:
    """`model` with weights in block 1 that are finite, but what they compute is not."""
    block = anatomy_of(model).blocks[1]
    with torch.no_grad():
        block.get_submodule(HUGE[family]).weight.fill_(3e38)
    return model


class Snapshot:
    """All that a caller can see of a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.parameters = dict(model.named_parameters())
        self.values = {name: value.clone() for name, value in model.state_dict().items()}
        self.config = model.config.to_dict()
        self.modes = {name: module.training for name, module in model.named_modules()}
        self.sizes = {
            name: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
        }
        self.kind = type(model)
        self.hooks = hooks_of(model)

    def require_unchanged(self) -> None:
        fresh = Snapshot(self.model)
        assert fresh.kind is self.kind
        assert fresh.config == self.config
        assert fresh.modes == self.modes
        assert fresh.sizes == self.sizes
        assert fresh.hooks == self.hooks
        assert all(fresh.parameters[name] is value for name, value in self.parameters.items())
        same_weights(fresh.values, self.values)


def hooks_of(model: nn.Module) -> int:
    """Hooks, and forwards replaced on a module."""
    return sum(
        len(module._forward_pre_hooks) + len(module._forward_hooks) + ("forward" in vars(module))
        for module in model.modules()
    )


def batches(model: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
    return [tiny_batch(model, rows=8, length=24, seed=seed) for seed in range(3)]


@pytest.mark.parametrize("family", HUGE)
@pytest.mark.parametrize("budget", BUDGETS, ids=["uniform", "per-layer", "plan"])
def test_activations_that_overflow_stop_the_run_where_they_appear(
    family: str, budget: dict[str, Any], tmp_path: Path
) -> None:
    model = overflowing(tiny_model(family), family).train()
    before = Snapshot(model)
    with pytest.raises(NonFiniteError, match=r"blocks\.1") as raised:
        statprune.compress(model, data=batches(model), out=tmp_path / "out", **budget)
    assert "Nothing was written" in str(raised.value)
    assert "blocks.2" not in str(raised.value)
    before.require_unchanged()
    assert list(tmp_path.iterdir()) == []


def test_the_same_from_a_folder(tmp_path: Path) -> None:
    overflowing(save_tiny(tmp_path / "model", "llama"), "llama").save_pretrained(tmp_path / "model")
    content = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    for method in ("stat", "refit"):
        with pytest.raises(NonFiniteError, match=r"blocks\.1\.feed_forward, read by mlp\.down_proj"):
            statprune.compress(
                tmp_path / "model",
                data=sentences(),
                keep=0.5,
                out=tmp_path / "out",
                samples=12,
                method=method,
            )
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == content


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("place", "error"),
    [("save", OutputError("no room")), ("save", KeyboardInterrupt()), ("refit", MemoryError()),
     ("adopt", VerificationError("broken"))],
)  # fmt: skip
def test_a_failure_anywhere_leaves_the_model_as_it_was(
    place: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama").train()
    model.model.layers[1].eval()
    before = Snapshot(model)
    monkeypatch.setattr(pipeline, place, failing(error))
    with pytest.raises(type(error)):
        statprune.compress(
            model, data=batches(model), keep=0.5, widths="per-layer", seq_len=24, out=tmp_path / "out"
        )
    before.require_unchanged()
    # What an interrupt or a full disk has stopped can go on; nothing else is worth it.
    kept = [] if isinstance(error, VerificationError) else ["out.unfinished"]
    assert [path.name for path in tmp_path.iterdir()] == kept


def test_a_saved_folder_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    before = Snapshot(model)
    monkeypatch.setattr("statprune.checkpoint.save.verify", failing(VerificationError("logits differ")))
    with pytest.raises(VerificationError):
        statprune.compress(model, data=batches(model), keep=0.5, out=tmp_path / "out")
    before.require_unchanged()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["measure", "prune", "survey", "refit"])
def test_an_interrupt_at_any_block_leaves_what_a_run_can_go_on_from(stage: str, tmp_path: Path) -> None:
    model = tiny_model("bert")
    before = Snapshot(model)
    seen: list[str] = []

    def interrupt(now: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
        seen.append(now)
        if now == stage and done == 2:
            raise KeyboardInterrupt

    plan = {"plan": {f"blocks.{n}.{kind}": 1 for n in range(3) for kind in ("attention", "feed_forward")}}
    options: dict[str, Any] = {"keep": 0.5} if stage in ("measure", "survey") else plan
    options |= {"method": "refit" if stage in ("survey", "refit") else "stat"}
    with pytest.raises(KeyboardInterrupt):
        statprune.compress(model, data=batches(model), out=tmp_path / "out", progress=interrupt, **options)
    assert stage in seen
    before.require_unchanged()
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
    statprune.compress(model, data=batches(model), out=tmp_path / "out", resume=True, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_in_training_is_pruned_as_in_evaluation_and_trains_on() -> None:
    model = tiny_model("bert", hidden_dropout_prob=0.5).train()
    model.bert.encoder.layer[1].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    statprune.compress(model, data=batches(model), keep=0.5)
    assert {name: module.training for name, module in model.named_modules()} == modes
    still = tiny_model("bert", hidden_dropout_prob=0.5)
    statprune.compress(still, data=batches(still), keep=0.5)
    same_weights(model.state_dict(), still.state_dict())
    assert not still.training
    assert hooks_of(model) == 0
    loss = model(**tiny_batch(model)).logits.square().mean()
    loss.backward()
    assert all(parameter.requires_grad for parameter in model.parameters())
    narrowed = anatomy_of(model).blocks[0].output.dense.weight
    assert narrowed.shape[1] < 40
    assert narrowed.grad is not None


def test_frozen_weights_stay_frozen() -> None:
    model = tiny_model("llama").requires_grad_(False)
    statprune.compress(model, data=batches(model), keep=0.5)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["folder", "file", "broken link"])
def test_an_output_that_exists_is_refused_before_the_model_is_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists, and nothing is ever overwritten"):
        statprune.compress("no/such-model", data=["x"], keep=0.5, out=tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_dry_run_with_an_output_writes_nothing_but_checks_it(tmp_path: Path) -> None:
    def dry(out: Path) -> None:
        statprune.compress(
            tiny_model("llama"),
            data=sentences(),
            tokenizer=letter_tokenizer(),
            keep=0.5,
            dry_run=True,
            out=out,
        )

    with pytest.raises(OutputError, match="exists"):
        dry(tmp_path)
    dry(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
