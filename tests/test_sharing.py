"""What several processes cannot share is refused before the first pass."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import statprune
from statprune import limits
from statprune.anatomy.lookup import anatomy_of
from statprune.errors import DataError, InputError
from statprune.planning import _enough
from statprune.recipe import Recipe
from statprune.sharing import device_of
from statprune.started import own_number, started_many
from tests.ranked import batches
from tests.tiny import tiny_model


def second_of(size: int, local: int = 1) -> Any:
    def unexpected(*_: Any) -> Any:
        raise AssertionError("asked the others")

    return SimpleNamespace(rank=1, size=size, local=local, same=unexpected, collected=unexpected)


@pytest.mark.parametrize(
    ("family", "options", "kind", "told"),
    [
        ("llama", {"method": "stat"}, DataError, "4 calibration samples for 5 processes"),
        (
            "mixtral",
            {"method": "stat", "backend": "gaussian"},
            InputError,
            "backend gaussian of a model with",
        ),
    ],
)
def test_what_cannot_be_shared(family: str, options: dict[str, Any], kind: Any, told: str) -> None:
    model = tiny_model(family)
    size = 5 if kind is DataError else 2
    with pytest.raises(kind, match=told):
        statprune.compress(model, data=batches(model, (4, 16)), keep=0.6, ranks=second_of(size), **options)


@pytest.mark.parametrize(
    ("device", "local", "expected"), [("auto", 1, "cuda:1"), ("cuda", 0, "cuda:0"), ("cpu", 1, "cpu")]
)
def test_each_process_takes_a_gpu(
    device: str, local: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    recipe = Recipe(keep=0.5, device=device)
    assert device_of(recipe, second_of(2, local), in_memory=False) == expected
    with pytest.raises(InputError, match="process 3 on a machine with 2 GPUs"):
        device_of(Recipe(keep=0.5), second_of(3, 2), in_memory=False)
    with pytest.raises(InputError, match="each process takes a GPU of its own"):
        device_of(Recipe(keep=0.5, device="cuda:1"), second_of(2), in_memory=False)


def test_a_timeout_that_is_no_time() -> None:
    for timeout in (0, -1.0, float("nan"), True, "soon"):
        with pytest.raises(InputError, match="timeout is"), statprune.together(timeout):
            pass  # pragma: no cover


def test_processes_are_counted_by_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (started_many(), own_number()) == (1, 0)
    monkeypatch.setenv("WORLD_SIZE", "4")  # some cluster's; without a rank nothing was started
    assert (started_many(), own_number()) == (1, 0)
    monkeypatch.setenv("RANK", "2")
    assert (started_many(), own_number()) == (4, 2)


def test_what_is_free_is_shared_with_the_others_here(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, samples = SimpleNamespace(model=None), SimpleNamespace(batches=[{}])

    def prepared(here: int) -> Any:
        anatomy = SimpleNamespace(ranks=SimpleNamespace(here=here))
        return SimpleNamespace(opened=opened, anatomy=anatomy, samples=samples, plan=None)

    monkeypatch.setattr(limits, "needed", lambda *_, **__: SimpleNamespace(least=1, most=30, block=5))
    monkeypatch.setattr(limits, "outputs_on_one", lambda *_: ("", True))
    monkeypatch.setattr(limits, "free_memory", lambda: 100)
    recipe: Any = Recipe(keep=0.5)
    assert limits.fitting(prepared(1), recipe, None) == limits.Fitting(spills=False, ahead=True)
    assert limits.fitting(prepared(2), recipe, None) == limits.Fitting(spills=True, ahead=True)
    assert limits.fitting(prepared(2), recipe, 40) == limits.Fitting(spills=False, ahead=True)


def test_a_second_block_is_read_only_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not push hidden states into files; that these are there leaves room for it."""
    monkeypatch.setattr(limits, "needed", lambda *_, **__: SimpleNamespace(least=10, most=30, block=5))
    monkeypatch.setattr(limits, "outputs_on_one", lambda *_: ("", True))
    prepared: Any = SimpleNamespace(
        opened=SimpleNamespace(model=None), anatomy=None, samples=SimpleNamespace(batches=[{}]), plan=None
    )
    found = [limits.fitting(prepared, Recipe(keep=0.5), limit) for limit in (35, 34, 30, 29, 15, 14)]
    assert [each.spills for each in found] == [False] * 3 + [True] * 3
    assert [each.ahead for each in found] == [True, False, False, True, True, False]


@pytest.mark.parametrize(("size", "expected"), [(2, 20), (21, 24)])
def test_a_search_has_a_sample_for_every_process(
    size: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    made = batches(model, (20, 16), (4, 16))
    monkeypatch.setattr("statprune.planning.to_survey", lambda *_: made[:1])
    anatomy = SimpleNamespace(**vars(anatomy_of(model)) | {"ranks": second_of(size)})
    found = _enough(SimpleNamespace(anatomy=anatomy, samples=SimpleNamespace(batches=made)))
    assert sum(len(batch["input_ids"]) for batch in found) == expected


def test_what_a_head_of_labels_takes_besides_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole samples are tried, some spliced; what all heads take is refused before a model is called."""
    asked: list[str] = []

    def needed(*_: Any, of_tokens: bool, **__: Any) -> Any:
        least = 10 if of_tokens else 50
        return SimpleNamespace(least=least, most=60, block=5, told=lambda: "so much")

    monkeypatch.setattr(limits, "needed", needed)
    monkeypatch.setattr(limits, "outputs_on_one", lambda *_: asked.append("called") or ("", False))
    prepared: Any = SimpleNamespace(
        opened=SimpleNamespace(model=None), anatomy=None, samples=SimpleNamespace(batches=[{}]), plan=None
    )
    with pytest.raises(InputError, match=r"needs 10 .*with its hidden states in files \(so much\)"):
        limits.fitting(prepared, Recipe(keep=0.5), 9)
    assert not asked
    with pytest.raises(InputError, match=r"needs 50 "):
        limits.fitting(prepared, Recipe(keep=0.5), 40)
    assert limits.fitting(prepared, Recipe(keep=0.5, method="stat"), 40) == limits.Fitting(
        spills=True, ahead=True
    )
    assert len(asked) == 1
