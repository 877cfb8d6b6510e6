"""How far outputs are from dense ones, on stand-ins whose logits are given."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.quality import divergence
from benchmarks.quality.divergence import between_records, between_texts, divergences
from benchmarks.quality.tasks import KINDS, Task, Window


class Given(nn.Module):
    """Its outputs are these functions of the input's ids."""

    def __init__(self, **made: Any) -> None:
        super().__init__()
        self.weight, self.made = nn.Parameter(torch.zeros(1)), made

    def forward(self, input_ids: Tensor, **_: Tensor) -> SimpleNamespace:
        return SimpleNamespace(**{name: function(input_ids.float()) for name, function in self.made.items()})


def task_of(name: str, count: int, monkeypatch: pytest.MonkeyPatch, encode: Any = None) -> Task:
    """Its records are one-token inputs from 1 on."""
    made = [{"input_ids": [number]} for number in range(1, count + 1)]
    if encode is not None:
        monkeypatch.setitem(divergence.KINDS, name, SimpleNamespace(encode=encode))
    elif name in KINDS:
        monkeypatch.setattr(divergence, "encode_records", read := lambda rows, *_: rows)
        monkeypatch.setitem(divergence.KINDS, name, SimpleNamespace(encode=read))
    return Task(name, "", (), [], 8, made, {})


WORDS = SimpleNamespace(pad_token_id=0)


def test_it_is_the_divergence_of_the_dense_distribution() -> None:
    a, b = (torch.randn(4, 7, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    expected = nn.functional.kl_div(b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="none")
    torch.testing.assert_close(divergences(a, b), expected.sum(-1))
    assert float(divergences(a, a + 3.0).abs().max()) < 1e-6


def test_texts_count_every_token_alike() -> None:
    def two_logits(ids: Tensor) -> Tensor:
        return torch.stack([ids, torch.zeros_like(ids)], dim=-1)

    dense, model = Given(logits=lambda ids: 0 * two_logits(ids)), Given(logits=two_logits)
    batches = [{"input_ids": torch.tensor([[1, 2, 3]])}, {"input_ids": torch.tensor([[4], [5]])}]
    each = [
        float(divergences(torch.zeros(2), torch.tensor([float(number), 0.0]))) for number in (1, 2, 3, 4, 5)
    ]
    assert between_texts(dense, model, batches) == pytest.approx(sum(each) / 5)


def test_classes_and_regressions(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("sst2", 3, monkeypatch)
    flat, steep = (
        Given(logits=lambda ids, by=by: torch.cat([by * ids, 0 * ids], dim=1)) for by in (0.0, 1.0)
    )
    each = [float(divergences(torch.zeros(2), torch.tensor([float(number), 0.0]))) for number in (1, 2, 3)]
    assert between_records(task, flat, steep, WORDS) == pytest.approx(sum(each) / 3)
    # Outputs 1, 2 and 3 vary by 2/3; each is half of itself off: (1 + 4 + 9) / 4 / 3.
    one, half = (Given(logits=lambda ids, by=by: by * ids) for by in (1.0, 0.5))
    assert between_records(task, one, half, WORDS) == pytest.approx(14 / 12 / (2 / 3))


def test_of_answers_start_and_end_are_added_and_padding_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows = [
        Window({"input_ids": [1, 2, 3]}, 0, [None, (0, 1), (1, 2)]),
        Window({"input_ids": [2, 1]}, 1, [(0, 1), None]),
    ]
    task = task_of("squad", 2, monkeypatch, encode=lambda *_: windows)
    # Pads, 0, are given the greatest logit.
    dense = Given(start_logits=lambda ids: -ids, end_logits=lambda ids: -ids)
    model = Given(start_logits=lambda ids: -2 * ids, end_logits=lambda ids: -ids)
    each = [divergences(-torch.tensor(ids), -2 * torch.tensor(ids)) for ids in ([1.0, 2.0, 3.0], [2.0, 1.0])]
    assert between_records(task, dense, model, WORDS) == pytest.approx(float(torch.stack(each).mean()))
