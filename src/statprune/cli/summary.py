"""What `statprune compress` prints at its end: within 80 columns, however many blocks the model has."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import statprune
from statprune.byte_size import byte_size
from statprune.cli.gate import show_gate
from statprune.cli.show import count, say, span, table
from statprune.in_words import STAGES


def show_result(result: "statprune.Result", seconds: float) -> None:
    """Print data, widths, sizes, damage, costs, where the folder is, and what may come next."""
    record, data = result.record, result.record["data"]
    if result.before and result.folder is not None:
        say(f"{result.folder.path} was finished before; what that run had left beside it is removed.")
    say(
        f"data: {data['source']['source']}, {data['samples']} samples, {data['tokens']} tokens; "
        f"{data['rule']}."
    )
    if result.trace.spliced:
        say(f"tokens are few: fitted on {result.trace.spliced} samples besides, each joined of two of these.")
    for note in record["notes"]:
        say(f"note: {note}")
    errors = {site.site: site.relative_error for site in result.trace.sites}
    if result.folder is None and not errors:
        _show_every_site(record, f"Plan: {result.plan.why}")
    _show_parts(record, errors, f"Widths: {result.plan.why}")
    _show_sizes(record)
    if isinstance(result, statprune.Gated):
        show_gate(result.gate)
    _show_costs(result.trace, seconds)
    if result.folder is not None:
        _show_folder(result, result.folder)


def _show_every_site(record: Mapping[str, Any], title: str) -> None:
    """Of a dry run, which leaves no file to look them up in."""
    rows = [[name, str(kept), str(record["units"][name])] for name, kept in record["plan"]["widths"].items()]
    table(title, ["site", "kept", "of"], rows)


def _show_parts(record: Mapping[str, Any], errors: Mapping[str, float], title: str) -> None:
    parts: dict[str, list[str]] = {}
    for name in record["plan"]["widths"]:
        stack, _, rest = name.partition(".")
        part = rest.partition(".")[2]
        parts.setdefault(part if stack == "blocks" else f"{stack} {part}", []).append(name)
    kept, units = record["plan"]["widths"], record["units"]
    table(
        title,
        ["part", "blocks", "dense", "kept", "mean", "output error"],
        [
            [
                part.replace("_", "-"),
                str(len(names)),
                span([units[name] for name in names]),
                span([kept[name] for name in names]),
                f"{sum(kept[name] for name in names) / len(names):.1f}",
                _errors([errors[name] for name in names if name in errors]),
            ]
            for part, names in parts.items()
        ],
    )


def _errors(found: Sequence[float]) -> str:
    return span(found, lambda error: f"{error:.1%}") if found else ""


def _show_sizes(record: Mapping[str, Any]) -> None:
    named = {
        "parameters": (record["parameters"], count),
        "of which prunable": (record["cost"]["params"], count),
        "MACs of these a token": (record["cost"]["macs"], count),
        "weights": (record["bytes"], byte_size),
    }
    table(
        "Size",
        ["", "dense", "kept", "share"],
        [
            [name, show(sizes["dense"]), show(sizes["kept"]), f"{sizes['kept'] / sizes['dense']:.4f}"]
            for name, (sizes, show) in named.items()
            if sizes["dense"] and sizes["kept"] is not None
        ],
    )


def _show_costs(trace: Any, seconds: float) -> None:
    if trace.predicted is not None:
        measured = "" if trace.divergence is None else f"; measured afterwards {trace.divergence:.4f}"
        say(f"damage predicted {trace.predicted:.4f}{measured} ({trace.damage})")
    table(
        f"Cost: {seconds:.1f} s in all",
        ["stage", "seconds", "peak memory"],
        [
            [
                STAGES.get(stage, stage),
                f"{spent:.1f}",
                byte_size(trace.memory[stage]) if stage in trace.memory else "",
            ]
            for stage, spent in trace.seconds.items()
        ],
    )


def _show_folder(result: "statprune.Result", folder: Any) -> None:
    found = folder.agreement
    differing = (
        ""
        if found is None
        else f"; outputs differ by {found.difference:.2g} where they reach {found.reach:.3g}"
    )
    say(f"saved and verified: {folder.path} (weights equal{differing})")
    if not folder.stock:
        say(f"not a stock folder: {folder.reason}")
    say(f"load: {folder.how_to_load}")
    path = shlex.quote(str(folder.path))
    say(f"next: statprune evaluate {path} --data TEXT --record {path}")
    say(f"      statprune report {path}")
