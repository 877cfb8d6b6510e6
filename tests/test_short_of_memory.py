"""Where memory is short, fewer rows pass at a time: the result is the same up to rounding, and it is told."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.calibration.records import from_memory
from statprune.errors import ShortOfMemoryError, StatpruneWarning, short_of_memory
from statprune.evaluation.batching import Example, outputs
from statprune.evaluation.perplexity import masked_lm_loss, perplexity
from statprune.linalg.gram import Gram
from tests.near import require_near
from tests.saved import letter_tokenizer, sentences
from tests.test_resume import batches, content
from tests.tiny import tiny_model

QUICK = (("llama", "refit"), ("llama", "stat"), ("mixtral", "stat"), ("bart", "stat"), ("t5", "stat"))


@contextmanager
def no_more_rows(
    model: nn.Module,
    most: int,
    *paths: str,
    error: Any = torch.OutOfMemoryError,
    when: Sequence[str] = ("survey",),
) -> Iterator[None]:
    """Modules at `paths` fail for more than so many rows, once a survey is on."""

    def fail(_: Any, inputs: tuple[Any, ...], named: Any) -> None:
        rows = len(inputs[0] if inputs else next(iter(named.values())))
        if rows > most and "survey" in when:
            raise error(f"tried to allocate {rows} rows")

    hooks = [module_at(model, path).register_forward_pre_hook(fail, with_kwargs=True) for path in paths]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def told() -> Iterator[list[str]]:
    """Our warnings, as they come."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        messages: list[str] = []
        yield messages
        messages += [str(each.message) for each in found if issubclass(each.category, StatpruneWarning)]


def last_of(model: PreTrainedModel) -> list[str]:
    """What runs first in a block, and last, behind all that is read; of the second block and the last one."""
    anatomy, found = anatomy_of(model), []
    names = {id(module): name for name, module in model.named_modules()}
    for number in (1, len(anatomy.blocks) - 1):
        block, sites = anatomy.blocks[number], anatomy.sites_of_block(number)
        first, last = module_at(block, sites[0].producers[0].path), module_at(block, sites[-1].consumer)
        found += [names[id(first)], *([] if sites[-1].experts else [names[id(last)]])]
    return found


def compressed(family: str, most: int | None, method: str) -> statprune.Result:
    model = tiny_model(family)
    data = batches(model)
    with no_more_rows(model, most or 10**6, *last_of(model)):
        return statprune.compress(model, data=data, keep=0.6, method=method)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        pytest.param(family, method, marks=[] if (family, method) in QUICK else pytest.mark.audit)
        for family in ("llama", "bert", "mixtral", "bart", "t5")
        for method in ("refit", "stat")
    ],
)
def test_in_halves_the_result_is_the_same(family: str, method: str) -> None:
    whole = compressed(family, None, method)
    with told() as said:
        halved = compressed(family, 3, method)
    assert any("memory was short for 8 rows at once; from here on 4 pass at a time" in each for each in said)
    assert halved.record["trace"]["warnings"] == said
    assert any("memory was short for 4 rows at once" in each for each in halved.record["trace"]["warnings"])
    assert not whole.record["trace"]["warnings"]
    require_near(whole, halved)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_below_one_row_there_is_nothing_left_to_halve(error: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    data = batches(model)
    given: dict[str, Any] = {"data": data, "keep": 0.6, "out": tmp_path / "out"}
    begun: list[str] = []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with (
        no_more_rows(model, 0, "model.layers.1.mlp.down_proj", error=error, when=begun),
        told() as said,
        pytest.raises(ShortOfMemoryError, match=r"blocks\.1: memory is short even .*--seq-len.*--offload"),
    ):
        statprune.compress(model, progress=lambda stage, *_: begun.append(stage), **given)
    assert [each.partition(" rows")[0].split()[-1] for each in said] == ["8", "4", "2"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
    statprune.compress(model, resume=True, **given)
    statprune.compress(tiny_model("llama"), **{**given, "out": tmp_path / "whole"})
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_the_head_and_the_embeddings_are_asked_for_fewer_rows() -> None:
    """The only rows whose outputs are compared, two of each batch of eight; and what embeds them."""
    model = tiny_model("llama")
    given = batches(model)
    with no_more_rows(model, 1, "model.norm", "model.embed_tokens"), told() as said:
        halved = statprune.compress(model, data=given, keep=0.6)
    assert any("outputs to compare: memory was short for 2 rows" in each for each in said)
    assert any("in front of blocks.0: memory was short for 8 rows" in each for each in said)
    whole = compressed("llama", None, "refit")
    assert halved.plan.widths == whole.plan.widths
    assert halved.trace.divergence == pytest.approx(whole.trace.divergence, rel=1e-3)


def test_a_sum_that_took_in_a_part_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(Gram, "update", fail)
    model = tiny_model("llama")
    with pytest.raises(ShortOfMemoryError, match="what is summed of 192 tokens"):
        statprune.compress(model, data=batches(model), keep=0.6)


def test_a_measurement_passes_in_halves_too() -> None:
    model = tiny_model("llama")
    data = batches(model)
    whole = statprune.plan(model, data=data, latency=False)
    with no_more_rows(model, 2, "model.layers.1.mlp.down_proj"), told() as said:
        halved = statprune.plan(model, data=data, latency=False)
    assert any("memory was short for 8 rows" in each for each in said)
    for name, curve in whole.curves.items():
        assert halved.curves[name].error == pytest.approx(curve.error, rel=1e-3, abs=1e-6)


def test_an_evaluation_asks_for_fewer_rows() -> None:
    model = tiny_model("llama")
    examples = [Example([5, 6, 7 + number]) for number in range(9)]
    given: dict[str, Any] = {"batch_tokens": 64, "padding": 1}
    whole = outputs(model, examples, lambda output, _: list(output.logits), **given)
    with no_more_rows(model, 2, "model.norm"), told() as said:
        halved = outputs(model, examples, lambda output, _: list(output.logits), **given)
    assert said[0].startswith("asking: memory was short for 9 rows")
    torch.testing.assert_close(halved, whole)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_loss_is_the_same_in_halves(family: str) -> None:
    model = tiny_model(family)
    tokenizer = letter_tokenizer("encoder" if family == "bert" else "decoder")
    records = from_memory(sentences())
    place = "model.norm" if family == "llama" else "bert.encoder.layer.2.output.dense"

    def loss() -> float:
        if family == "llama":
            return perplexity(model, tokenizer, records, seq_len=16).nll
        return masked_lm_loss(
            model, tokenizer, records, seq_len=32, generator=torch.Generator().manual_seed(0)
        ).loss

    whole = loss()
    with no_more_rows(model, 3, place), told():
        assert loss() == pytest.approx(whole, rel=1e-6)
    with no_more_rows(model, 0, place), told(), pytest.raises(ShortOfMemoryError, match="even for one row"):
        loss()


def test_what_says_that_memory_is_short() -> None:
    """Torch says so on the host by a plain RuntimeError."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert short_of_memory(raised.value)
    assert not short_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_what_does_not_take_one_sample_is_refused_before_the_first_pass(error: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    with (
        no_more_rows(model, 0, "model.norm", error=error),
        pytest.raises(ShortOfMemoryError, match="batch 1: memory is short for its first sample"),
    ):
        statprune.compress(model, data=batches(model), keep=0.6, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())
