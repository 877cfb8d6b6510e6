"""What ONNX Runtime makes of an exported graph, against what transformers computes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

STEPS = 3
"""Tokens given one by one behind the first, where there is a cache."""


class Fed(Protocol):
    """What is compared: a module, and what it is fed."""

    @property
    def module(self) -> nn.Module:
        """Of tensors."""
        ...

    @property
    def inputs(self) -> list[str]:
        """Names."""
        ...

    @property
    def outputs(self) -> list[str]:
        """Names."""
        ...

    @property
    def cache(self) -> bool:
        """Whether keys and values go in and out."""
        ...

    def feed(self, rows: int, length: int, *, past: int, seed: int) -> dict[str, Any]:
        """Inputs of the module."""
        ...


@torch.no_grad()
def compare(graph: Fed, path: Path) -> tuple[float, float]:
    """The largest difference of an output, and the largest output; at other sizes than those exported.

    With a cache, a text is given at once and then token by token, each step reading what the one before
    returned; transformers sees the whole text without a cache.
    """
    import onnxruntime  # noqa: PLC0415 - an optional library

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = graph.feed(3, 7, past=0, seed=1)
    if not graph.cache:
        expected = graph.module(feed)
        found = _run(session, {name: value.numpy() for name, value in feed.items()})
        return _apart(dict(zip(graph.outputs, expected, strict=True)), found)
    model: Any = graph.module.model
    past = {name: value for name, value in zip(_halves(graph), _flat(feed["past"]), strict=True)}
    ids = feed["input_ids"]
    expected = model(input_ids=ids, use_cache=False).logits
    given, differences, largest = 0, [], 0.0
    for length in (ids.shape[1] - STEPS, *[1] * STEPS):
        step = slice(given, given + length)
        inputs = {
            "input_ids": ids[:, step].numpy(),
            "attention_mask": np.ones((len(ids), given + length), dtype=np.int64),
            "position_ids": np.arange(given, given + length)[None].repeat(len(ids), 0),
        }
        found = _run(session, {**inputs, **past})
        one, largest_here = _apart({"logits": expected[:, step]}, found)
        differences.append(one)
        largest = max(largest, largest_here)
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
        given += length
    return max(differences), largest


def _run(session: Any, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    known = {each.name for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    wanted = {name: value for name, value in feed.items() if name in known}
    return dict(zip(names, session.run(None, wanted), strict=True))


def _apart(expected: Mapping[str, Tensor], found: Mapping[str, np.ndarray]) -> tuple[float, float]:
    gaps = [float(np.abs(found[name] - value.numpy()).max()) for name, value in expected.items()]
    return max(gaps), max(float(value.abs().max()) for value in expected.values())


def _halves(graph: Fed) -> list[str]:
    return [name for name in graph.inputs if name.startswith("past_key_values.")]


def _flat(past: Any) -> list[np.ndarray]:
    return [half.numpy() for pair in past for half in pair]
