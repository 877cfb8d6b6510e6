"""Measurements and records that are none."""

import torch

from tests.cli import hostile as do
from tests.cli.hostile import DEEP, FROM, JSON, RECORD, SITE, Deed, Row


def curve(key: str, value: object) -> Deed:
    return do.changed(JSON, "curves", SITE, key, to=value)


MEASUREMENTS: dict[str, Row] = {
    "deep": (do.write(JSON, DEEP), FROM, ("nested too deeply", "Measure again")),
    "a list": (do.write(JSON, "[]"), FROM, ("is of format None", "Measure again")),
    "model is a number": (
        do.changed(JSON, "model", to=3),
        FROM,
        ("model is 3, and not a name", "Measure again"),
    ),
    "model is null": (do.changed(JSON, "model", to=None), "plan --from measured", ("model is None",)),
    "context is a word": (
        do.changed(JSON, "context", to="x"),
        FROM,
        ("context is 'x', and not a whole number",),
    ),
    "context is negative": (
        do.changed(JSON, "context", to=-1),
        FROM,
        ("context cannot be what was written",),
    ),
    "about is a list": (do.changed(JSON, "about", to=[]), FROM, ("about is [], and not an object",)),
    "about is empty": (do.changed(JSON, "about", to={}), FROM, ("about.damage cannot be what was written",)),
    "stock is a text": (
        do.changed(JSON, "about", "stock_units", to="x"),
        FROM,
        ("about.stock_units cannot be",),
    ),
    "data is empty": (do.changed(JSON, "data", to={}), FROM, ("data.tokens cannot be", "Measure again")),
    "curves are a list": (do.changed(JSON, "curves", to=[]), FROM, ("curves is [], and not an object",)),
    "a curve is null": (
        do.changed(JSON, "curves", SITE, to=None),
        FROM,
        (f"the curve of {SITE} cannot be read",),
    ),
    "errors are words": (curve("error", ["a"] * 41), FROM, (f"the curve of {SITE} cannot be read",)),
    "errors are NaN": (
        curve("error", [float("nan")] * 41),
        FROM,
        (f"the curve of {SITE} holds what no measurement",),
    ),
    "errors are negative": (
        curve("error", [-1.0] * 41),
        FROM,
        (f"the curve of {SITE} holds what no measurement",),
    ),
    "too few errors": (curve("error", [1.0, 0.0]), FROM, ("holds what no measurement does",)),
    "damage at no width": (curve("measured", [[10**6, 1.0]]), FROM, ("holds what no measurement does",)),
    "damage is NaN": (curve("measured", [[20, float("nan")]]), FROM, ("holds what no measurement does",)),
    "damage is a text": (curve("measured", "x"), FROM, (f"the curve of {SITE} cannot be read",)),
    "latency is empty": (
        do.changed(JSON, "latency", to={}),
        FROM,
        ("latency cannot be read", "Measure again"),
    ),
    "latency is a text": (do.changed(JSON, "latency", to="x"), FROM, ("latency is 'x'",)),
    "latency of no site": (
        do.changed(JSON, "latency", "seconds", to={}),
        FROM,
        ("latency has no seconds of",),
    ),
    "a bit of a sample": (
        do.turned("measured/samples.safetensors", -9),
        FROM,
        ("is not what was written", "Measure"),
    ),
    "a sample is no token": (
        do.each(lambda ids: ids + 10**6),
        FROM,
        ("samples that this model cannot", "Measure again"),
    ),
    "a sample is negative": (
        do.each(lambda ids: ids - 9),
        FROM,
        ("samples that this model cannot read", "Measure again"),
    ),
    "samples are fractions": (do.each(torch.Tensor.float), FROM, ("samples that this model cannot read",)),
    "samples are flat": (do.each(torch.Tensor.flatten), FROM, ("samples that this model cannot read",)),
    "samples are empty": (
        do.each(lambda ids: ids[:0].clone()),
        FROM,
        ("samples that this model cannot read",),
    ),
    "samples of another name": (
        lambda root: (
            do.tensors(
                lambda found: found.update({"00000.evil": torch.ones(2)}), "measured/samples.safetensors"
            )(root),
            do.forget_digest(root),
        ),
        FROM,
        ("samples that this model cannot read", "evil"),
    ),
    "no samples": (
        lambda root: (do.tensors(dict.clear, "measured/samples.safetensors")(root), do.forget_digest(root)),
        FROM,
        ("samples that this model cannot read", "none"),
    ),
    "a record that names no model": (
        do.changed("made/statprune.json", "model", to=3),
        RECORD,
        ("does not name the model",),
    ),
    "a record that is deep": (do.write("made/statprune.json", DEEP), RECORD, ("nested too deeply",)),
    "a record with a key twice": (
        do.write("made/statprune.json", '{"plan":{},"plan":{}}'),
        RECORD,
        ("'plan' twice",),
    ),
}
