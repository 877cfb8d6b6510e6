"""Blocks left on disk: the folder that comes out is the one that comes out in memory, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint import offload, shards
from statprune.checkpoint.load import load
from statprune.errors import InputError, NonFiniteError, VerificationError
from tests.saved import save_tiny
from tests.test_resume import batches
from tests.tiny import tiny_model

FAMILIES = ("llama", "qwen3", "gemma2", "phi3", "gpt2", "gpt_neo", "gpt_neox", "opt", "bert", "deberta-v2")
MIXTURES, TWO_STACKS = ("mixtral", "qwen2_moe"), ("bart", "t5")


def run(source: Any, out: Path, family: str, **options: Any) -> Any:
    data = batches(tiny_model(family))
    return statprune.compress(source, data=data, out=out, **{"keep": 0.6, **options})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).model.state_dict()


@pytest.mark.parametrize("method", ["refit", "stat"])
@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES, *TWO_STACKS])
def test_offloaded_is_the_same_bit_for_bit(family: str, method: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", family)
    run(tmp_path / "model", tmp_path / "memory", family, method=method)
    result = run(tmp_path / "model", tmp_path / "disk", family, method=method, offload=True)
    assert result.model is None
    memory, disk = weights(tmp_path / "memory"), weights(tmp_path / "disk")
    assert list(memory) == list(disk)
    assert all(torch.equal(value, disk[name]) for name, value in memory.items())
    configs = [(tmp_path / name / "config.json").read_text() for name in ("memory", "disk")]
    assert configs[0] == configs[1]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "memory", "disk"}


def test_no_more_than_one_block_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "model", "llama", num_hidden_layers=6)
    seen: list[int] = []
    own = nn.Module.__call__

    def counting(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if type(module).__name__ == "LlamaDecoderLayer":
            model = opened[0]
            there = [
                any(not each.is_meta for each in block.parameters()) for block in anatomy_of(model).blocks
            ]
            seen.append(sum(there))
        return own(module, *args, **kwargs)

    opened: list[Any] = []
    lender = offload.Lender.__init__
    monkeypatch.setattr(
        offload.Lender,
        "__init__",
        lambda self, model, *rest: (opened.insert(0, model), lender(self, model, *rest))[1],
    )
    monkeypatch.setattr(nn.Module, "__call__", counting)
    for method in ("refit", "stat"):
        run(tmp_path / "model", tmp_path / method, "llama", method=method, offload=True)
    assert len(seen) > 50
    assert max(seen) == 1  # none while the model is walked up to its first block


@pytest.mark.parametrize("method", ["refit", "stat"])
def test_an_offloaded_run_goes_on_where_it_was_stopped(method: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", "mixtral")
    run(tmp_path / "model", tmp_path / "whole", "mixtral", method=method)

    def stop(stage: str, done: int, *_: Any) -> None:
        if (stage, done) in stops:
            raise KeyboardInterrupt

    for stage in ("survey", "measure", "refit", "prune"):
        stops = [(stage, 2)]
        try:
            run(
                tmp_path / "model", tmp_path / "out", "mixtral",
                method=method, offload=True, resume=True, progress=stop,
            )  # fmt: skip
        except KeyboardInterrupt:
            assert (tmp_path / "out.unfinished").exists()
        else:
            break
    whole, out = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(value, out[name]) for name, value in whole.items())


def test_what_needs_the_model_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "model", "llama")
    for options, told in (
        ({"search": True}, "search needs the model in memory"),
        ({"of": "latency"}, "a budget of latency needs the model in memory"),
    ):
        with pytest.raises(InputError, match=told):
            run(tmp_path / "model", tmp_path / "out", "llama", offload=True, **options)
    with pytest.raises(InputError, match="this model is in memory"):
        run(tiny_model("llama"), tmp_path / "out", "llama", offload=True)
    monkeypatch.setattr(offload, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'statprune\[offload\]'"):
        run(tmp_path / "model", tmp_path / "out", "llama", offload=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_block_that_is_not_finite_is_named_before_any_pass(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = torch.nan
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(NonFiniteError, match=r"blocks\.1\.mlp\.down_proj\.weight holds 1 NaN"):
        run(tmp_path / "model", tmp_path / "out", "llama", offload=True)


def test_a_folder_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "model", "llama")

    own = shards.save_file

    def corrupted(tensors: dict[str, torch.Tensor], *rest: Any, **named: Any) -> None:
        changed = {
            name: value + 1e-3 if "layers.1.mlp.up" in name else value for name, value in tensors.items()
        }
        own(changed, *rest, **named)

    monkeypatch.setattr(shards, "save_file", corrupted)
    with pytest.raises(VerificationError, match=r"mlp\.up_proj\.weight differs"):
        run(tmp_path / "model", tmp_path / "out", "llama", offload=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("method", ["refit", "stat"])
def test_hidden_states_in_files_are_those_in_memory(method: str, tmp_path: Path) -> None:
    """Both streams, and what the dense one notes; nothing of it is left."""
    save_tiny(tmp_path / "model", "bart")
    run(tmp_path / "model", tmp_path / "memory", "bart", method=method)
    run(tmp_path / "model", tmp_path / "disk", "bart", method=method, offload=True, max_memory="1KB")
    memory, disk = weights(tmp_path / "memory"), weights(tmp_path / "disk")
    assert all(torch.equal(value, disk[name]) for name, value in memory.items())
    assert {path.name for path in tmp_path.iterdir()} == {"model", "memory", "disk"}
