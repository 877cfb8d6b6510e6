"""Speeds come from alternating runs, and decoding runs to its end."""

import json
import time

import pytest
import torch
import transformers
from torch import nn

from statprune.errors import InputError
from statprune.evaluation.speed import tokens_per_second


class Sleeper(nn.Module):
    """Takes a known time."""

    def __init__(self, name, seconds, log):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.name, self.seconds, self.log = name, list(seconds), log

    def forward(self, input_ids, attention_mask):
        assert not self.training
        self.log.append((self.name, tuple(input_ids.shape)))
        time.sleep(self.seconds[len([n for n, _ in self.log if n == self.name]) - 1])


@pytest.fixture(scope="module")
def decoder():
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        # Every token ends the text, if eos were heeded.
        eos_token_id=list(range(40)),
    )
    return transformers.LlamaForCausalLM(config).eval()


def test_runs_alternate_and_medians_ignore_the_warm_up_and_one_slow_run():
    log = []
    # The warm-up and one of three runs are slow.
    quick = Sleeper("quick", [0.2, 0.01, 0.2, 0.01], log)
    slow = Sleeper("slow", [0.2, 0.04, 0.04, 0.2], log)
    speeds = tokens_per_second(
        {"quick": quick, "slow": slow},
        vocab_size=9,
        batch=2,
        seq_len=5,
        repeats=3,
        generator=torch.Generator(),
    )
    assert [name for name, _ in log] == ["quick", "slow"] * 4
    assert {shape for _, shape in log} == {(2, 5)}
    assert [len(speed.prefill_seconds) for speed in speeds.values()] == [3, 3]
    # Sleeping takes at least the time asked for, so the speed is at most this.
    assert 10 / 0.1 < speeds["quick"].prefill <= 10 / 0.01
    assert 10 / 0.1 < speeds["slow"].prefill <= 10 / 0.04
    assert speeds["quick"].decode is None
    assert quick.training


def test_only_the_last_logits_are_computed_and_decoding_is_not_ended_early(decoder):
    seen = []
    hook = decoder.lm_head.register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(output.shape))
    )
    speeds = tokens_per_second(
        {"a": decoder},
        vocab_size=40,
        batch=3,
        seq_len=8,
        repeats=1,
        decode_tokens=6,
        generator=torch.Generator().manual_seed(0),
    )
    hook.remove()
    # Warm-up and one run: a prefill, then a prefill and six more tokens in generate, through the cache.
    assert seen == [(3, 1, 40)] * 2 * (1 + 1 + 6)
    speed = speeds["a"]
    assert speed.prefill == pytest.approx(3 * 8 / speed.prefill_seconds[0])
    assert speed.decode == pytest.approx(3 * 6 / speed.decode_seconds[0])
    facts = speed.to_json()
    assert json.loads(json.dumps(facts))["protocol"] == facts["protocol"]
    assert facts["protocol"]["decode_tokens"] == 6


def test_the_generator_alone_draws_the_prompt(decoder):
    prompts = []
    hook = decoder.register_forward_pre_hook(lambda m, a, k: prompts.append(k["input_ids"]), with_kwargs=True)
    state = torch.get_rng_state()
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        tokens_per_second({"a": decoder}, vocab_size=40, batch=2, seq_len=8, repeats=1, generator=generator)
    hook.remove()
    assert torch.equal(prompts[0], prompts[2])
    assert not torch.equal(prompts[0], prompts[4])
    assert torch.equal(state, torch.get_rng_state())


def test_what_cannot_be_timed(decoder):
    sizes = {"vocab_size": 9, "batch": 1, "seq_len": 4, "generator": torch.Generator()}
    with pytest.raises(InputError, match="0 models"):
        tokens_per_second({}, **sizes)
    with pytest.raises(InputError, match="repeats 0"):
        tokens_per_second({"a": decoder}, repeats=0, **sizes)
    with pytest.raises(InputError, match="'a': Linear cannot generate"):
        tokens_per_second({"a": nn.Linear(1, 1)}, decode_tokens=1, **sizes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_clock_waits_for_the_device(decoder):
    speeds = tokens_per_second(
        {"a": decoder.to("cuda")},
        vocab_size=40,
        batch=2,
        seq_len=8,
        decode_tokens=3,
        generator=torch.Generator(),
    )
    decoder.to("cpu")
    assert speeds["a"].protocol["device"] == "cuda"
    assert speeds["a"].decode > 0
