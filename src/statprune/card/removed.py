"""What was taken away, and what that is expected to have cost: two sections of the card."""

from collections.abc import Mapping
from typing import Any

from statprune.card.markdown import code, escaped, table

WORDS = {
    "attention": "attention, in heads (where several share keys and values: in such groups)",
    "cross_attention": "cross-attention, in heads",
    "feed_forward": "feed-forward, in neurons",
    "experts": "each expert, in neurons",
    "shared_expert": "the shared expert, in neurons",
}
Widths = Mapping[str, tuple[int, int]]


def widths_by_part(record: Mapping[str, Any]) -> dict[str, dict[int, tuple[int, int]]]:
    """For every part of a block, by the block's number, units of the dense model and units kept.

    A part is as "attention"; where there are several lists of blocks, as "decoder attention".
    """
    found: dict[str, dict[int, tuple[int, int]]] = {}
    for name, kept in record["plan"]["widths"].items():
        stack, block, part = name.split(".")
        whole = part if stack == "blocks" else f"{stack} {part}"
        found.setdefault(whole, {})[int(block)] = (record["units"][name], kept)
    return found


def removed(record: Mapping[str, Any]) -> str:
    """Widths, dense -> kept: in a line where every block has the same, else a table; and sizes."""
    parts = widths_by_part(record)
    even = {part: blocks for part, blocks in parts.items() if len(set(blocks.values())) == 1}
    lines = [_even(part, next(iter(blocks.values()))) for part, blocks in even.items()]
    value_dim = record["plan"].get("value_dim")
    if value_dim is not None:
        lines.append(f"- values of every head: {value_dim} columns kept, fewer than queries and keys have")
    uneven = {part: blocks for part, blocks in parts.items() if part not in even}
    pieces = ["\n".join(lines)] if lines else []
    if uneven:
        told = "; ".join(_words(part) for part in uneven)
        pieces += [f"Units of the dense model -> units kept, block by block ({told}):", _uneven(uneven)]
    return "\n\n".join([*pieces, _sizes(record)])


def _even(part: str, widths: tuple[int, int]) -> str:
    dense, kept = widths
    what = f"{dense} -> {kept}" if dense != kept else f"all {dense} kept"
    return f"- {_words(part)}: {what}, in every block"


def _words(part: str) -> str:
    stack, _, name = part.rpartition(" ")
    return f"{stack} {WORDS.get(name, name)}".strip()


def _uneven(parts: Mapping[str, Mapping[int, tuple[int, int]]]) -> str:
    blocks = sorted({index for of_part in parts.values() for index in of_part})
    rows: list[tuple[list[int], list[str]]] = []
    for index in blocks:
        cells = [_cell(of_part.get(index)) for of_part in parts.values()]
        if rows and rows[-1][1] == cells:
            rows[-1][0].append(index)
        else:
            rows.append(([index], cells))
    named = [part.replace("_", "-") for part in parts]
    return table(["block", *named], [[_range(indices), *cells] for indices, cells in rows])


def _cell(widths: tuple[int, int] | None) -> str:
    return (
        "" if widths is None else f"{widths[0]} -> {widths[1]}" if widths[0] != widths[1] else str(widths[0])
    )


def _range(indices: list[int]) -> str:
    return str(indices[0]) if len(indices) == 1 else f"{indices[0]}-{indices[-1]}"


def _sizes(record: Mapping[str, Any]) -> str:
    named = {
        "parameters of the model": record.get("parameters"),
        "bytes of weights": record.get("bytes"),
        "parameters that could be removed": record["cost"]["params"],
        f"multiply-adds of these a token, at {record['context']} tokens": record["cost"]["macs"],
    }
    rows = [
        [name, f"{sizes['dense']:,.0f}", f"{sizes['kept']:,.0f}", f"{sizes['kept'] / sizes['dense']:.1%}"]
        for name, sizes in named.items()
        if sizes and sizes["dense"] and sizes["kept"] is not None
    ]
    return table(["", "dense", "kept", "share"], rows)


def damage(record: Mapping[str, Any]) -> str:
    """What was predicted, and measured, on calibration samples."""
    trace = record["trace"]
    predicted, found = trace.get("predicted"), trace.get("divergence")
    if predicted is None and found is None:
        return "This method predicts no damage, and measures none on the calibration data."
    told = [
        f"{word} {value:.4f}"
        for word, value in (("predicted", predicted), ("measured afterwards", found))
        if value is not None
    ]
    return f"Damage {', '.join(told)}: {escaped(trace['damage'])}."


def calibration(record: Mapping[str, Any]) -> str:
    """From which data, how much of it, and which seed."""
    data, source = record["data"], record["data"]["source"]
    whole = {"split": source.get("split"), "configuration": source.get("config")}
    more = "".join(f", {name} {code(value)}" for name, value in whole.items() if value)
    spliced = record["trace"].get("spliced", 0)
    besides = f" Fits saw {spliced:,} samples besides, each joined of two of these." if spliced else ""
    return (
        f"{code(source['source'])} ({escaped(source.get('kind', ''))}{more}): {data['samples']} samples, "
        f"{data['tokens']:,} tokens, seed {record['recipe']['seed']}. Labels were not used. "
        f"{escaped(str(data['rule'])[:1].upper() + str(data['rule'])[1:])}.{besides}"
    )


def made_by(record: Mapping[str, Any]) -> str:
    """The method in a sentence."""
    recipe = record["recipe"]
    methods = {
        "refit": "heads and neurons are chosen by what they add to the output, and the weights that read the "
        "rest are fitted again by least squares, block by block",
        "stat": "interpolative decompositions, as published in STAT (arXiv 2406.00061)",
    }
    told = methods.get(str(recipe["method"]), "")
    return f"Method {code(recipe['method'])}: {told}. Plan: {escaped(record['plan']['why'])}."
