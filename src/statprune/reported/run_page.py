"""What one run's page says, section by section."""

import json
from collections.abc import Mapping, Sequence
from shlex import quote, split
from typing import Any

from statprune.reported import charts, network
from statprune.reported.drawing import Table
from statprune.reported.facts import Pair, damage, quality, shares, sizes, speed
from statprune.reported.reading import Left
from statprune.reported.sections import Page, Section, Tile, curves_section
from statprune.reported.sites import Cut, cuts
from statprune.reported.wording import at, count, headed, number, percent, plain, size, texts, told


def run_page(left: Left) -> Page:
    """The page of one run; to be called where `drawing.style` holds."""
    record, found = left.record, cuts(left)
    of_size, of_quality, of_speed = sizes(left), quality(left), speed(left)
    made = [
        _warnings(record),
        _before_after(left, of_size, of_quality, of_speed),
        _network(found),
        curves_section(found, marked=True),
        _damage(left, found),
        _gate(record),
        _cost(record),
        _repeat(left),
    ]
    model = told(record.get("model") or "a model without a name")
    kept = shares(left)
    says = [
        f"{model} ({told(record.get('model_type') or 'of unknown type')}), pruned after training by method "
        f"{told(at(record, 'recipe', 'method') or 'unknown')}"
        + (f". Of what can be pruned, {kept} are left." if kept else ".")
    ]
    return Page(
        f"{left.label}: what was pruned, and what it cost",
        says,
        _tiles(left, of_size, of_quality, of_speed),
        [each for each in made if each is not None],
    )


def _tiles(
    left: Left, of_size: Sequence[Pair], of_quality: Sequence[Pair], of_speed: Sequence[Pair]
) -> list[Tile]:
    by_unit = {pair.unit: pair for pair in reversed(of_size)}
    tiles = []
    for unit, name, show in (
        ("parameters", "Parameters", count),
        ("bytes", "Weights on disk", size),
        ("MACs", "MACs a token", count),
    ):
        pair = by_unit.get(unit)
        if pair is not None:
            what = f" ({pair.name})" if pair.name == "parameters that can be pruned" else ""
            tiles.append(
                Tile(
                    f"{name} left",
                    percent(pair.share),
                    f"{show(pair.dense)} before, {show(pair.kept)} after{what}",
                )
            )
    whole = next((pair for pair in of_quality if pair.change), None)
    if whole is not None:
        tiles.append(
            Tile(
                headed(whole.name),
                f"{whole.change} points" if whole.points else whole.change,
                f"{whole.show(whole.dense)} before, {whole.show(whole.kept)} after",
            )
        )
    pair = damage(left)
    if pair.kept is not None:
        tiles.append(Tile("Damage measured", plain(pair.kept), f"{pair.unit}; {plain(pair.dense)} predicted"))
    fast = next((pair for pair in of_speed if pair.better > 0 and pair.share is not None), None)
    if fast is not None:
        tiles.append(
            Tile(
                f"Speed, {fast.name.partition(',')[0]}",
                f"{fast.share:.2f} x",
                f"{fast.show(fast.dense)} before, {fast.show(fast.kept)} after, tokens a second",
            )
        )
    return tiles


def _warnings(record: Mapping[str, Any]) -> Section | None:
    listed = [f"warning: {told(each)}" for each in texts(at(record, "trace", "warnings"))]
    listed += [f"note: {told(each)}" for each in texts(record.get("notes"))]
    listed += [f"note: {told(each)}" for each in texts(at(record, "gate", "notes"))]
    if not listed:
        return Section("warnings", "Warnings and notes", says=["None was raised."])
    return Section("warnings", "Warnings and notes", listed=listed)


def _before_after(
    left: Left, of_size: Sequence[Pair], of_quality: Sequence[Pair], of_speed: Sequence[Pair]
) -> Section:
    says, commands = [], []
    folder, model = left.label, told(left.record.get("model"))
    absent = [name for name in ("parameters", "bytes") if not isinstance(left.record.get(name), Mapping)]
    if absent:
        says.append(
            f"The record does not hold {' and '.join(absent)} of the whole model: an earlier version has "
            f"written it."
        )
    if not of_quality:
        says.append("Quality: no evaluation is recorded.")
        commands.append(
            (
                "an evaluation is added by",
                f"statprune evaluate {quote(folder)} --data SOURCE --record {quote(folder)}",
            )
        )
    elif all(pair.dense is None for pair in of_quality):
        says.append("Quality: no evaluation of the dense model is recorded.")
        commands.append(
            ("it is added by", f"statprune evaluate {quote(model)} --data SOURCE --record {quote(folder)}")
        )
    if not of_speed:
        says.append("Speed: no benchmark is recorded.")
        commands.append(
            (
                "a benchmark is added by",
                f"statprune benchmark {quote(folder)} --against {quote(model)} --record {quote(folder)}",
            )
        )
    pairs = [*of_size, *of_quality, *of_speed]
    rows = [pair.row for pair in pairs]
    tables = [Table("Size, quality and speed", ["", "dense", "pruned", "change"], rows)] if rows else []
    protocols = list(dict.fromkeys((pair.name, pair.protocol) for pair in pairs if pair.protocol))
    drawn = charts.remaining([*of_size, *of_speed])
    drawn += charts.beside("quality", "Quality, dense and pruned", of_quality)
    drawn += charts.beside("speed", "Speed, dense and pruned", [pair for pair in of_speed if pair.better > 0])
    folded = [("How each was counted or measured", "\n".join(f"{name}: {how}" for name, how in protocols))]
    return Section(
        "before-after", "Before and after", says, commands, (), tables, drawn, folded if protocols else ()
    )


def _network(found: Sequence[Cut]) -> Section:
    listed = any(cut.kept is not None for cut in found)
    says = [
        "A row is a block, filled is kept. Up to 64 units are drawn each at its place; more as a bar as long "
        "as their share."
    ]
    if not listed:
        says.append("The record does not say which units are kept, only how many.")
    return Section("network", "The network, block by block", says, charts=network.picture(found))


def _damage(left: Left, found: Sequence[Cut]) -> Section:
    pair = damage(left)
    drawn = charts.damage_chart(pair) + network.damage_by_block(found, pair.unit)
    if not drawn:
        return Section(
            "damage", "Damage, predicted and measured", ["This method predicts and measures none."]
        )
    says = [
        f"{headed(pair.protocol)}. Predicted: the sum over sites, each cut alone and "
        f"nothing made good. Measured: the pruned model, its consumers fitted."
    ]
    return Section("damage", "Damage, predicted and measured", says, charts=drawn)


def _gate(record: Mapping[str, Any]) -> Section | None:
    gate = record.get("gate")
    if not isinstance(gate, Mapping):
        return None
    says = [
        f"Searched: the smallest model whose {told(gate.get('metric'))} of {told(gate.get('task'))} falls by "
        f"at most {told(gate.get('max_drop'))} {told(gate.get('unit'))} from "
        f"{plain(number(gate.get('dense')))}, on {told(gate.get('examples'))} examples. Chosen: keep "
        f"{told(gate.get('keep'))} of {told(gate.get('of'))}."
    ]
    untried = gate.get("untried")
    if isinstance(untried, Sequence) and untried:
        says.append(f"Not tried, and perhaps within: {told(untried)}.")
    facts = [("validation", told(gate.get("protocol") or "not recorded"))]
    return Section("gate", "Trials of the gate", says, facts=facts, charts=charts.gate_charts(gate))


def _cost(record: Mapping[str, Any]) -> Section:
    drawn = charts.stages(record.get("trace"))
    says = []
    if not any(each.name == "stages-seconds" for each in drawn):
        says.append("Time is not recorded.")
    if not any(each.name == "stages-memory" for each in drawn):
        says.append("Memory is not recorded.")
    return Section("cost", "Time and memory of the run", says, charts=drawn)


def _repeat(left: Left) -> Section:
    record = left.record
    versions = {"statprune": record.get("statprune"), **_mapping(record.get("versions"))}
    facts = [("versions", told(versions)), ("dtype", told(record.get("dtype")))]
    facts += [(name, told(record[name])) for name in ("fingerprints", "licence") if record.get(name)]
    data = _mapping(record.get("data"))
    facts += [
        (f"data: {name.replace('_', ' ')}", told(value)) for name, value in data.items() if value is not None
    ]
    plan = _mapping(record.get("plan"))
    folded = [
        ("The plan, as a file for --plan", json.dumps(plan, indent=1, ensure_ascii=False)),
        ("The recipe, every option", json.dumps(record.get("recipe"), indent=1, ensure_ascii=False)),
    ]
    says = [f"The widths were chosen so: {told(plan['why'])}."] if plan.get("why") else []
    lines = command(record)
    if not lines:
        says.append("The command cannot be told: the record lacks a part of the recipe.")
    return Section("repeat", "To repeat it", says, lines, facts, folded=folded)


def command(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The command line that repeats a run; none where the record is too old to tell."""
    from statprune.repeat import command_of  # noqa: PLC0415 - knows the recipe's defaults, and loads torch

    try:
        line = command_of(record)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return []
    what = "the command; its --plan file is the plan below" if at(record, "recipe", "plan") else "the command"
    return [(what, folded_line(line))]


def folded_line(line: str) -> str:
    """A command with a line for every option, as a shell takes it."""
    words = [quote(word) for word in split(line)]
    return " ".join(f"\\\n  {word}" if word.startswith("--") else word for word in words)


def _mapping(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}
