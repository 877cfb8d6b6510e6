"""Two shapes of random weights, and plans that keep a share of their block parameters."""

import random
from copy import deepcopy
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.budget.cost import Cost
from statprune.budget.plan import Plan
from statprune.surgery.cut import cut, own_columns

WIDTHS = {
    "uniform": 8,
    "per-layer": 8,
    "per-layer, any count": 1,
    "per-layer, multiples of 32": 32,
}
"""What neurons are multiples of; 8 is what `compress` takes unless it is told."""
SPREAD = 0.35
"""How far the share that a block keeps may be from the mean, before the total is put right."""


def bert_base() -> Any:
    """BERT-base with a classifier: its forward pass makes one row of outputs a text."""
    return BertForSequenceClassification(BertConfig())


def llama_100m() -> Any:
    """A Llama of 110 million weights, of which 85 million in blocks; embeddings tied."""
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=12,
            num_attention_heads=12,
            num_key_value_heads=12,
            vocab_size=32000,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
    )


def tiny() -> Any:
    """A Llama for trying the script out."""
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4, vocab_size=100
        )
    )


SHAPES = {"BERT-base": bert_base, "Llama 100M": llama_100m, "tiny": tiny}


def plan_of(anatomy: Anatomy, keep: float, widths: str, seed: int) -> Plan:
    """Widths that keep `keep` of the block parameters: the same in every block, or drawn block by block.

    Heads keep that share as nearly as whole heads can; neurons take what is left of the budget.
    """
    draw = random.Random(seed)
    blocks, multiple = len(anatomy.blocks), WIDTHS[widths]
    varied = widths != "uniform"
    shares = [keep + varied * draw.uniform(-SPREAD, SPREAD) for _ in range(blocks)]
    heads = [site for site in anatomy.sites if site.kind == "attention"]
    kept = spread([shares[site.block] * site.units for site in heads], [site.units for site in heads], 1)
    if not varied:
        kept = [round(keep * site.units) for site in heads]
    plan = {site.name: width for site, width in zip(heads, kept, strict=True)}
    params = Cost("params", 1)
    neurons = [site for site in anatomy.sites if site.kind == "feed_forward"]
    spent = sum(params.of_width(site, plan[site.name]) for site in heads)
    fixed = sum(params.fixed(site) for site in neurons)
    total = (keep * params.dense(anatomy.sites) - spent - fixed) / params.per_unit(neurons[0])
    wanted = [total / blocks + varied * (shares[site.block] - keep) * site.units for site in neurons]
    scale = total / sum(wanted)
    limits = [site.units for site in neurons]
    if varied:
        counts = spread([each * scale for each in wanted], limits, multiple)
    else:
        counts = [int(total / blocks) // multiple * multiple] * blocks
    plan |= {site.name: width for site, width in zip(neurons, counts, strict=True)}
    return Plan(plan)


def spread(wanted: list[float], limits: list[int], multiple: int) -> list[int]:
    """Multiples near what is wanted, from one multiple to the limit, whose sum is that of what is wanted."""
    left, found = sum(wanted), []
    for number, (each, limit) in enumerate(zip(wanted, limits, strict=True)):
        rest = sum(wanted[number:])
        here = round(left * each / rest / multiple) * multiple
        found.append(min(limit, max(multiple, here)))
        left -= found[-1]
    return found


@torch.no_grad()
def narrowed(model: Any, plan: Plan) -> Any:
    """A copy of `model` that keeps the first units of every site; its weights are random anyway."""
    made = deepcopy(model)
    anatomy = anatomy_of(made)
    for site in anatomy.sites:
        block, kept = anatomy.blocks[site.block], torch.arange(plan[site])
        cut(block, site, kept, own_columns(block, site, kept))
    return made
