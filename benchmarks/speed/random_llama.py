"""A Llama of random weights and any shape, written shard by shard: never more than a block in memory.

python -m benchmarks.speed.random_llama OUT --tokenizer FOLDER [--hidden 4096 --neurons 11008 ...]
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig

from statprune.checkpoint.shards import Shards


def write(out: Path, config: LlamaConfig, seed: int = 0) -> None:
    """Weights are normal, scaled so that hidden states keep their size from block to block."""
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, str(config.dtype).removeprefix("torch."))
    hidden, neurons, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers

    def random(rows: int, columns: int, scale: float = 1.0) -> Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=dtype) * (scale * columns**-0.5)

    out.mkdir(parents=True)
    shards = Shards(out, layers + 1)
    ones = torch.ones(hidden, dtype=dtype)
    shards.write(
        {
            "model.embed_tokens.weight": random(config.vocab_size, hidden, hidden**0.5),
            "model.norm.weight": ones,
            "lm_head.weight": random(config.vocab_size, hidden),
        },
    )
    width = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    for number in range(layers):
        block = {
            "self_attn.q_proj.weight": random(width, hidden),
            "self_attn.k_proj.weight": random(keys, hidden),
            "self_attn.v_proj.weight": random(keys, hidden),
            "self_attn.o_proj.weight": random(hidden, width, layers**-0.5),
            "mlp.gate_proj.weight": random(neurons, hidden),
            "mlp.up_proj.weight": random(neurons, hidden),
            "mlp.down_proj.weight": random(hidden, neurons, layers**-0.5),
            "input_layernorm.weight": ones,
            "post_attention_layernorm.weight": ones.clone(),
        }
        shards.write({f"model.layers.{number}.{name}": value for name, value in block.items()})
    shards.write_index()
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a tokenizer")
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--neurons", type=int, default=11008)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=32)
    parser.add_argument("--head-dim", type=int, help="hidden / heads, if it is not given")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args()
    config = LlamaConfig(
        hidden_size=given.hidden,
        intermediate_size=given.neurons,
        num_hidden_layers=given.layers,
        num_attention_heads=given.heads,
        num_key_value_heads=given.kv_heads,
        head_dim=given.head_dim,
        vocab_size=given.vocabulary,
        dtype=given.dtype,
    )
    write(given.out, config)
    AutoTokenizer.from_pretrained(given.tokenizer).save_pretrained(given.out)


if __name__ == "__main__":
    main()
