"""What a run whose blocks stay on disk needs in memory, counted beforehand.

    outside the blocks + one block + one site's sums and factors + hidden states

Of these only the hidden states can lie in files. Nothing grows with depth but, in a survey, the few samples
that are tried out.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.calibration.batches import Batch
from statprune.engine.carriers import MOST
from statprune.engine.divergence import PROBE_TOKENS, SURVEYED
from statprune.engine.survey import LEVELS

MATRICES = {"stat": 4.5, "refit": 13.0}
"""Square float64 matrices of a site's columns that are there at once, as measured (docs/offload.md)."""

STREAMS = {"stat": 2, "refit": 8}
"""Copies of all hidden states: both streams, and what a refit notes of the dense one at a block."""

BASE = 600 * 2**20
"""Bytes of the libraries."""


@dataclass(frozen=True)
class Memory:
    """Bytes, by what they are for."""

    outside: int
    block: int
    site: int
    hidden: int

    @property
    def least(self) -> int:
        """With hidden states in files."""
        return BASE + self.outside + self.block + self.site

    @property
    def most(self) -> int:
        """With everything in memory."""
        return self.least + self.hidden

    def told(self) -> str:
        """In words."""
        parts = {
            "libraries": BASE,
            "outside the blocks": self.outside,
            "one block": self.block,
            "one site": self.site,
        }
        return ", ".join(f"{what} {in_words(number)}" for what, number in parts.items())


def needed(model: PreTrainedModel, anatomy: Anatomy, batches: Sequence[Batch], method: str) -> Memory:
    """What compressing `model` on `batches` needs."""
    blocks = [_bytes(block) for block in anatomy.blocks]
    columns = max(site.units * site.columns for site in anatomy.sites)
    width, size = int(model.config.hidden_size), model.dtype.itemsize
    tokens = sum(batch["attention_mask"].numel() for batch in batches)
    tries, noted = 0, 0
    if method == "refit":
        tries = len(LEVELS) * len(anatomy.sites) * min(PROBE_TOKENS, tokens // SURVEYED)
        noted = 4 * min(MOST, tokens * max(site.units * site.columns for site in anatomy.sites) * 2)
    return Memory(
        outside=_bytes(model) - sum(blocks),
        block=max(blocks),
        site=int(MATRICES[method] * 8 * columns**2) + noted,
        hidden=(STREAMS[method] * tokens + tries) * width * size,
    )


def _bytes(module: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in module.parameters())


def in_words(number: int) -> str:
    """Bytes as people say them: 1.5 GB is 1.5e9 bytes."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def free_memory() -> int:
    """Bytes that a process here may still take, as far as the system tells; else none are known to be."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
