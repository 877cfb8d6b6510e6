"""What the page shows, as HTML: numbers, widths, and how a compression goes."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

from statprune.anatomy.sites import Site
from statprune.byte_size import byte_size
from statprune.explore.charts import damage_chart, widths_chart
from statprune.explore.choices import BUDGETS, Explored, Told, quality, rows
from statprune.explore.runs import Seen
from statprune.in_words import memory_told, time_left, told
from statprune.reports import Memory

BEGUN = "the run has begun; the model is being read"


def headline(explored: Explored) -> str:
    """What was measured, and of which model."""
    about, size = explored.found.about, explored.size
    return (
        f"<h1>statprune explore</h1><p>{escape(explored.found.model)}: {escape(str(about['model_type']))}, "
        f"{explored.blocks} blocks, {size.parameters:,} parameters, {byte_size(size.bytes)} as "
        f"{escape(str(about['dtype']))}; measured in {escape(str(explored.folder))}.</p>"
    )


def refused(why: str) -> str:
    """Why something was not done."""
    return f'<p class="refused" role="alert">{escape(why)}</p>'


def numbers(answer: Told, explored: Explored) -> str:
    """The plan in numbers, or why there is none."""
    if answer.refused:
        return refused(answer.refused)
    size, dense = answer.size, explored.size
    if size is None:
        return ""
    found = [("predicted damage", f"{answer.predicted:.4f}", quality(explored, answer.predicted))]
    found.append(
        (
            "whole model",
            f"{size.parameters:,} parameters",
            f"{size.parameters / dense.parameters:.1%} of {dense.parameters:,}, embeddings and head too",
        )
    )
    found.append(("on disk", byte_size(size.bytes), f"of {byte_size(dense.bytes)}"))
    for of, whole, kept in answer.costs:
        found.append((f"{BUDGETS[of]} of the blocks", f"{kept / whole:.2%}", _cost(of, kept, whole)))
    return _list(found)


def _cost(of: str, kept: float, whole: float) -> str:
    if of == "latency":
        return f"{kept * 1e3:.3g} ms of {whole * 1e3:.3g} ms for the batch that was timed"
    per = " a token" if of == "macs" else ""
    return f"{kept:,.0f} of {whole:,.0f}{per}, in attention and MLP projections"


def damage(answer: Told) -> str:
    """The chart of damage against budget."""
    if answer.refused or answer.recipe is None:
        return ""
    return damage_chart(answer.curve, (answer.share, answer.predicted), BUDGETS[answer.recipe.of])


def widths(answer: Told, explored: Explored) -> str:
    """A chart for every part of the blocks, and the same as a table."""
    found = rows(answer, explored)
    if not found:
        return ""
    sites = {site.name: site for site in explored.found.sites}
    charts = []
    for part, group in groupby(found, key=lambda row: row[0]):
        of_part = list(group)
        shown = [(kept, units) for _, _, kept, units, _ in of_part]
        charts.append(widths_chart(part, shown, unit_of(sites[of_part[0][4]])))
    lines = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{kept}</td><td>{units}</td></tr>"
        for _, _, kept, units, name in found
    )
    table = (
        f"<details><summary>Widths as a table</summary><div class='scroll' tabindex='0' role='region' "
        f"aria-label='widths of every site'><table><thead><tr><th scope='col'>site</th><th scope='col'>kept"
        f"</th><th scope='col'>of</th></tr></thead><tbody>{lines}</tbody></table></div></details>"
    )
    return f'<div class="charts">{"".join(charts)}</div>{table}'


def unit_of(site: Site) -> str:
    """What the units of a site are called, in the plural."""
    if site.experts:
        return "neurons of each expert"
    if site.kind == "feed_forward":
        return "neurons"
    return "heads" if site.group == 1 else "key-value groups"


def progress(seen: Seen | None) -> str:
    """How a compression goes, and how it ended."""
    if seen is None:
        return '<p class="progress">Nothing has been started in this tab.</p>'
    if not seen.running:
        return _ended(seen)
    report = seen.report
    stage = told(str(report["stage"])) if report else BEGUN
    done, blocks = int(report.get("block") or 0), int(report.get("blocks") or 0)
    facts = [
        stage,
        f"block {done} of {blocks}" if blocks > 1 else "",
        _error(report),
        time_left(report.get("seconds_left")),
        memory_told(Memory(*(report.get(f"{name}_bytes") for name in ("resident", "peak", "device_peak")))),
    ]
    if seen.cancelled:
        facts.insert(0, "ending")
    bar = f'<progress max="{max(blocks, 1)}" value="{done}" aria-label="{escape(stage)}"></progress>'
    said = "; ".join(escape(fact) for fact in facts if fact)
    return f'<div class="progress">{bar}<p>Writing {escape(str(seen.out))}: {said}.</p></div>'


def _error(report: dict[str, Any]) -> str:
    site, error = report.get("site"), report.get("error")
    return "" if site is None or error is None else f"error of {site} {float(error):.2%}"


def _ended(seen: Seen) -> str:
    if seen.code == 0:
        done = f"<p>Done: <strong>{escape(str(seen.out))}</strong></p>"
        return f'<div class="progress">{done}{summary(seen.record)}</div>'
    what = "Cancelled" if seen.cancelled else f"Failed, exit code {seen.code}"
    return f'<div class="progress"><p class="refused" role="alert">{what}: {escape(seen.message)}</p></div>'


def summary(record: dict[str, Any] | None) -> str:
    """What a finished run says of itself."""
    if record is None:
        return ""
    trace, cost = record.get("trace", {}), record.get("cost", {})
    found = [
        (f"{BUDGETS.get(of, of)} of the blocks kept", f"{each['share']:.2%}") for of, each in cost.items()
    ]
    for name, of in (("parameters", "{:,}"), ("bytes", "{:,}")):
        kept, dense = (record.get(name, {}).get(key) for key in ("kept", "dense"))
        if kept is not None and dense is not None:
            found.append((f"{name} of the whole model", f"{of.format(kept)} of {of.format(dense)}"))
    for key, what in (("predicted", "damage predicted"), ("divergence", "damage measured")):
        if trace.get(key) is not None:
            found.append((what, f"{trace[key]:.4f}"))
    spent = sum(float(each) for each in trace.get("seconds", {}).values())
    found.append(("time", f"{spent:.1f} s"))
    return _list([(name, value, "") for name, value in found])


def _list(items: Sequence[tuple[str, str, str]]) -> str:
    """Names, numbers, and what more there is to say of them."""
    told_each = (
        f"<div><dt>{escape(name)}</dt><dd><strong>{escape(value)}</strong> {escape(more)}</dd></div>"
        for name, value, more in items
    )
    return f'<dl class="numbers">{"".join(told_each)}</dl>'


def mute(explored: Explored) -> str:
    """Why the model writes no text."""
    return f'<p id="mute">{escape(explored.mute)}</p>'


def others(seen: Sequence[Seen]) -> str:
    """Compressions of other tabs that go on."""
    if not seen:
        return ""
    names = ", ".join(escape(str(each.out)) for each in seen)
    return f"<p class='others'>Also going on, started in another tab: {names}.</p>"
