"""The command that repeats a run, read off its record."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from statprune.recipe import Recipe

PLAN_FILE = "plan.json"
"""The name under which the plan of a record is to be saved, where a file gave it."""

_DEFAULTS = {each.name: each.default for each in fields(Recipe)}
_SINGLE = (
    "of",
    "method",
    "widths",
    "samples",
    "seq_len",
    "dtype",
    "device",
    "seed",
    "backend",
    "multiple",
    "value_dim",
)


def command_of(record: Mapping[str, Any], out: str = "smaller") -> str:
    """The command line that repeats the run of `record`, quoted for a shell.

    Options at their defaults are left out. A model or data whose place was private goes by its name alone;
    data that was in memory is named DATA.
    """
    words = ["statprune", "compress", str(record["model"]), *_budget(record), *_data(record)]
    return shlex.join([*words, *options_of(record["recipe"]), "--out", out])


def options_of(recipe: Mapping[str, Any]) -> list[str]:
    """The options of a recipe, as JSON has it, that are not defaults; without budget, plan and data."""
    words = _restricted(recipe)
    for name in _SINGLE:
        value = recipe.get(name)
        if value is not None and value != _DEFAULTS[name] and not _said_by_plan(recipe, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return [*words, "--search"] if recipe.get("search") else words


def _budget(record: Mapping[str, Any]) -> list[str]:
    gate, recipe = record.get("gate"), record["recipe"]
    if gate is not None:
        words = [
            "--max-drop",
            f"{gate['max_drop']:g}",
            "--task",
            str(gate["task"]),
            *_asked(gate["protocol"]),
        ]
        most = gate.get("max_trials")
        return words if most is None else [*words, "--max-trials", str(most)]
    if recipe.get("plan") is not None:
        return ["--plan", PLAN_FILE]
    return ["--keep", f"{recipe['keep']:g}"]


def _asked(protocol: Mapping[str, Any]) -> list[str]:
    """What the gate's questions were, where they are not the task's own, whole."""
    count, _, of = str(protocol.get("examples", "")).partition(" of ")
    source = protocol.get("data") or {}
    words = [] if source.get("kind") == "hub" else ["--task-data", _source(source)]
    return words + (["--max-examples", count] if of else [])


def _source(source: Mapping[str, Any]) -> str:
    """NAME[:CONFIG][@SPLIT]."""
    name = str(source.get("source", "memory"))
    name += f":{source['config']}" if source.get("config") else ""
    return name + (f"@{source['split']}" if source.get("split") else "")


def _said_by_plan(recipe: Mapping[str, Any], option: str) -> bool:
    return option in ("of", "widths", "multiple") and recipe.get("plan") is not None


def _data(record: Mapping[str, Any]) -> list[str]:
    name = _source(record["data"].get("source") or {})
    columns = record["recipe"].get("text_column")
    chosen = columns if isinstance(columns, str | None) else ",".join(columns)
    return ["--data", "DATA" if name == "memory" else name, *(["--text-column", chosen] if chosen else [])]


def _restricted(recipe: Mapping[str, Any]) -> list[str]:
    words = [f"--floor={name}={units}" for name, units in (recipe.get("floors") or {}).items()]
    words += [f"--protect={block}" for block in recipe.get("protect") or ()]
    return words + [f"--pin={name}={units}" for name, units in (recipe.get("pins") or {}).items()]
