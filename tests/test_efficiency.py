"""`benchmark`: what is counted is there, what is timed is by the clock given, what cannot be is refused."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.cost import Cost
from statprune.errors import InputError, StatpruneWarning
from statprune.evaluation import rounding
from statprune.evaluation.rounding import Perceptron, Roundings, try_roundings
from statprune.evaluation.speed import Timing
from statprune.peak_memory import Pass, in_fresh_process
from tests.saved import save_tiny
from tests.tiny import tiny_model, uneven_cut


def ticking(steps: list[float]) -> Callable[[], float]:
    """A clock that goes on by the next of `steps`, over and over, whenever it is read."""
    now, each = 0.0, itertools.cycle(steps)

    def read() -> float:
        nonlocal now
        now += next(each)
        return now

    return read


def test_sizes_are_those_of_the_modules_and_the_cache() -> None:
    dense, pruned = tiny_model("llama"), uneven_cut(tiny_model("llama"))
    found = statprune.benchmark(pruned, against=dense, seq_len=9, batch=2, decode_tokens=3, repeats=1)
    assert found.pruned.parameters == sum(p.numel() for p in pruned.parameters())
    sites = anatomy_of(pruned).sites
    assert found.pruned.block_parameters == Cost("params", 1).dense(sites)
    assert found.pruned.macs == 18 * Cost("macs", 9).dense(sites)
    heads = sum(site.units for site in sites if site.kind == "attention")
    assert found.pruned.cache_bytes_per_token == 2 * heads * 8 * 4
    assert found.dense is not None
    assert found.dense.cache_bytes_per_token == 2 * 6 * 8 * 4
    assert found.pruned.weight_bytes == 4 * found.pruned.parameters
    assert found.pruned.file_bytes is None
    assert found.pruned.forward.tokens == 18
    assert found.pruned.decode is not None
    assert found.pruned.decode.tokens == 6
    assert found.ratios["macs"] == found.pruned.macs / found.dense.macs < 1


def test_times_are_the_clocks_and_ratios_those_of_medians() -> None:
    models = {"pruned": tiny_model("bert"), "against": tiny_model("bert")}
    # Read before and after each pass: pruned, then dense; the first of each warms up.
    passes = [9.0, 9.0, 1.0, 4.0, 2.0, 6.0, 9.0, 5.0]
    clock = ticking([step for seconds in passes for step in (0.0, seconds)])
    found = statprune.benchmark(
        models["pruned"], against=models["against"], seq_len=4, repeats=3, clock=clock
    )
    assert found.dense is not None
    assert found.pruned.forward.seconds == (1.0, 2.0, 9.0)
    assert found.dense.forward.seconds == (4.0, 6.0, 5.0)
    assert found.ratios["forward"] == 2.5
    assert found.pruned.decode is None
    assert found.rounding is None
    assert found.headline() == "2.50 x as fast over the prompt, with 100.0% of the prunable parameters."
    content = json.loads(json.dumps(found.to_json()))
    assert content["faster"] is True
    assert content["pruned"]["forward"] | {"seconds": 0} == {
        "tokens_per_second": 2.0,
        "median": 2.0,
        "least": 1.0,
        "most": 9.0,
        "seconds": 0,
    }


def test_a_model_that_is_not_faster_says_so_and_what_would_be() -> None:
    pruned, dense = uneven_cut(tiny_model("llama")), tiny_model("llama")
    found = statprune.benchmark(
        pruned, against=dense, seq_len=4, decode_tokens=0, repeats=1, clock=ticking([0.0, 1.0])
    )
    assert found.rounding is not None
    assert set(found.rounding.rounded) == set(rounding.MULTIPLES)
    assert found.headline().startswith("Not faster: 1.00 x as fast over the prompt")
    assert "none of 8, 16, 32, 64 makes it faster" in found.headline()
    assert found.to_json()["faster"] is False


@pytest.mark.parametrize(("penalty", "best"), [({32: 1.0, 64: 1.1}, 32), ({}, None)])
def test_the_fastest_rounding_is_named_if_it_gains(penalty: dict[int, float], best: int | None) -> None:
    perceptrons = {Perceptron(100, 8, 1): 2, Perceptron(30, 8, 2): 1}

    def times(asked: Any) -> dict[Perceptron, float]:
        """Widths that are multiples of what the penalty names take that long, all others 2."""
        return {
            each: min([seconds for m, seconds in penalty.items() if each.neurons % m == 0], default=2.0)
            for each in asked
        }

    found = try_roundings(perceptrons, times)
    assert found.as_they_are == 6.0
    assert found.best == best
    assert ("--multiple 32" in found.told()) == (best == 32)
    assert found.to_json()["best"] == best


def test_of_a_folder_the_files_count_that_it_is_opened_from(tmp_path: Path) -> None:
    save_tiny(tmp_path / "bert", "bert")
    whole = tmp_path / "bert" / "model.safetensors"
    (tmp_path / "bert" / "consolidated.safetensors").write_bytes(whole.read_bytes())
    found = statprune.benchmark(tmp_path / "bert", seq_len=4, repeats=1)
    assert found.pruned.file_bytes == whole.stat().st_size


def test_a_gain_below_the_clocks_noise_is_none() -> None:
    assert Roundings(1.01, {8: 1.0}).best is None
    assert Roundings(1.03, {8: 1.0}).best == 8


def test_speed_is_tokens_by_the_median() -> None:
    assert Timing(10, (1.0, 5.0, 2.0)).per_second == 5.0


def test_memory_of_a_pass_is_seen_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"vocab_size": 20_000, "max_position_embeddings": 512}
    save_tiny(tmp_path / "bert", "bert", **sizes)
    found = in_fresh_process(Pass(str(tmp_path / "bert"), 2, 512, "auto", 1))
    logits = 2 * 512 * 20_000 * 4
    assert found is not None
    assert logits <= found < 6 * logits
    monkeypatch.setattr("sys.executable", "false")  # a process that fails
    with pytest.warns(StatpruneWarning, match=r"ended with code 1 \(it said nothing\)"):
        assert in_fresh_process(Pass(str(tmp_path / "bert"), 2, 512, "auto", 1)) is None


@pytest.mark.parametrize("model_type", ["vit", "whisper", "t5", "qwen2_moe"])
def test_every_kind_of_model_is_measured(model_type: str) -> None:
    dense, pruned = tiny_model(model_type), uneven_cut(tiny_model(model_type))
    found = statprune.benchmark(pruned, against=dense, repeats=1)
    assert found.dense is not None
    assert 0 < found.pruned.macs < found.dense.macs
    writes = model_type in ("t5", "qwen2_moe")
    assert (found.pruned.decode is not None) == writes
    assert len(found.rows()[0]) == len(found.columns()) == 4


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "batch": ("llama", {"batch": 0}, "batch is 0; give at least 1"),
    "repeats": ("llama", {"repeats": 0}, "repeats is 0; give at least 1"),
    "negative": ("llama", {"decode_tokens": -1}, "decode_tokens is -1; give 0"),
    "long": ("llama", {"seq_len": 65, "decode_tokens": 0}, "sequence length 65 .*64 positions. Take less"),
    "decode": ("llama", {"seq_len": 60, "decode_tokens": 4}, "60 and 4 tokens to decode .*64 positions"),
    "encoder": ("bert", {"decode_tokens": 8}, "decode_tokens is 8, .*BertForMaskedLM, writes no text"),
    "images": ("vit", {"seq_len": 8}, "seq_len is 8, .*images of one size"),
}
UNLIKE: dict[str, tuple[Callable[[], Any], str]] = {
    "vocabulary": (
        lambda: tiny_model("llama", vocab_size=65),
        "vocabulary: 64 in .*, but 65 in .*pruned from",
    ),
    "kinds": (lambda: tiny_model("bert"), "class of head: writes text in .*, but writes none"),
    "dtype": (lambda: tiny_model("llama").double(), "dtype: torch.float32 .*give --dtype"),
}


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statprune.efficiency.take_turns", lambda *_: pytest.fail("it was timed"))


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_before_anything_is_timed(case: str) -> None:
    model_type, options, told = REFUSED[case]
    with pytest.raises(InputError, match=f"(?s){told}"):
        statprune.benchmark(tiny_model(model_type), **options)


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("case", UNLIKE)
def test_models_that_are_not_one_before_and_after_are_refused(case: str) -> None:
    dense, told = UNLIKE[case]
    with pytest.raises(InputError, match=f"(?s){told}"):
        statprune.benchmark(tiny_model("llama"), against=dense())


def test_a_decoder_fills_its_context_and_no_more() -> None:
    found = statprune.benchmark(tiny_model("llama"), seq_len=60, decode_tokens=3, repeats=1)
    assert (found.protocol["seq_len"], found.protocol["decode_tokens"]) == (60, 3)
    found = statprune.benchmark(tiny_model("llama"), repeats=1)
    assert (found.protocol["seq_len"], found.protocol["decode_tokens"]) == (32, 31)
