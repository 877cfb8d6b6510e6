"""Random plans of every model type: the model cut is the model whose other units nobody reads."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.calibration.batches import inputs_of
from statprune.checkpoint.load import load
from statprune.checkpoint.save import save
from tests.plans import masked, random_kept
from tests.tiny import MODEL_TYPES, random_cut, tiny_batch, tiny_model

PLANS = 8
"""Of each type, in `make test`."""

MANY = 120
"""Of each type, in `make audit`."""

SAVED = 12
"""Of them every so many-th is saved and loaded."""


@torch.no_grad()
def output(model: PreTrainedModel, seed: int) -> Tensor:
    return model(**inputs_of(model, tiny_batch(model, rows=2, length=8, seed=seed))).logits


def require_equal(dense: PreTrainedModel, seed: int) -> PreTrainedModel:
    """The model cut by the plan of this seed, which computes what the one masked does."""
    kept = random_kept(anatomy_of(dense).sites, seed)
    thin = random_cut(deepcopy(dense), kept)
    widths = {site.name: site.units for site in anatomy_of(thin).sites}
    told = f"seed {seed}: {kept}"
    assert {name: widths[name] for name in kept} == {name: len(units) for name, units in kept.items()}, told
    wanted = output(masked(deepcopy(dense), kept), seed)
    torch.testing.assert_close(output(thin, seed), wanted, msg=lambda said: f"{told}\n{said}")
    return thin


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_cut_equals_masked(model_type: str) -> None:
    dense = tiny_model(model_type).double()
    for seed in range(PLANS):
        require_equal(dense, seed)


@pytest.mark.audit
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_cut_equals_masked_for_many(model_type: str, tmp_path: Path) -> None:
    dense = tiny_model(model_type, seed=1)
    double = deepcopy(dense).double()
    for seed in range(PLANS, PLANS + MANY):
        require_equal(double, seed)
        if seed % SAVED == 0:
            kept = random_kept(anatomy_of(dense).sites, seed)
            require_loaded(random_cut(deepcopy(dense), kept), tmp_path / str(seed), f"seed {seed}: {kept}")


def require_loaded(thin: PreTrainedModel, out: Path, told: str) -> None:
    saved = save(thin, anatomy_of(thin), out, source=None, tokenizer=None, record={"by": "a test"})
    loaded = load(saved.path).model
    assert anatomy_of(loaded).sites == anatomy_of(thin).sites, told
    weights = loaded.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in thin.state_dict().items()), told
    # The weights lie elsewhere in memory, and the order of additions follows from that.
    expected, found = output(thin, 3), output(loaded, 3)
    largest = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(
        found, expected, rtol=0, atol=1e-6 * largest, msg=lambda said: f"{told}\n{said}"
    )
