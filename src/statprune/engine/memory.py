"""What a run whose blocks stay on disk needs in memory, counted beforehand.

    outside the blocks + one block + one site's sums and factors + hidden states

Of these only the hidden states can lie in files. With depth grow, in a survey, the few samples that are tried
out, and the little that is known of every block.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.size import size_of
from statprune.byte_size import byte_size
from statprune.calibration.batches import Batch
from statprune.engine.carriers import noted_bytes
from statprune.engine.divergence import PROBE_TOKENS, SURVEYED
from statprune.engine.few_tokens import added_to
from statprune.engine.survey import LEVELS

MATRICES = {"stat": (3.4, 3.0), "refit": (3.0, 6.0)}
"""Float64 matrices of a site that are there at once: columns x columns, and columns x outputs.

Counted in the code and measured (docs/offload.md): of a refit moments of the rows to fit and of those held
out, and a factor; of targets those of both, of all, and three fits.
"""

SUMS = {"stat": (1.0, 0.0), "refit": (2.0, 2.0)}
"""The same while they are being summed."""

HEADS = 2.6
"""Square ones more for heads by method stat, whose units are factored one by one where tokens are few."""

STREAMS = {"stat": 2, "refit": 8}
"""Copies of all hidden states: both streams, and what a refit notes of the dense one at a block."""

BASE = 600 * 2**20
"""Bytes of the libraries."""

LEFT = 500_000
"""Bytes that every block leaves: its modules without weights, holes in the heap (docs/offload.md)."""

LEFT_OF_UNIT = 72
"""Bytes that every unit leaves: three numbers in curves, and its own in the lists of those kept."""


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
        return ", ".join(f"{what} {byte_size(number)}" for what, number in parts.items())


def needed(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    method: str,
    *,
    of_tokens: bool = True,
    wanted: int = 0,
) -> Memory:
    """What compressing `model` on `batches` needs.

    Unless outputs are `of_tokens`, a refit tries whole samples out; where so many tokens are
    `wanted` (engine/few_tokens.py), it may fit on spliced samples besides.
    """
    blocks = [size_of(block).bytes for block in anatomy.blocks]
    units = sum(site.units * max(1, site.experts) for site in anatomy.sites)
    width, size = anatomy.hidden_size, model.dtype.itemsize
    counts = [batch["attention_mask"].numel() for batch in batches]
    tokens, tries = sum(counts), 0
    if method == "refit":
        probed = min(PROBE_TOKENS, tokens // (SURVEYED if of_tokens else 1))
        tries = len(LEVELS) * len(anatomy.sites) * probed
        added = added_to(anatomy, batches, wanted)
        tokens += sum(batch["attention_mask"].numel() for batch in added)
    return Memory(
        outside=size_of(model).bytes - sum(blocks) + LEFT * len(blocks) + LEFT_OF_UNIT * units,
        block=max(blocks),
        site=max(
            _of_site(anatomy.blocks[site.block], site, method, width, (max(counts), tokens, size))
            for site in anatomy.sites
        ),
        hidden=(STREAMS[method] * tokens + tries) * width * size,
    )


def _of_site(block: nn.Module, site: Site, method: str, outputs: int, sizes: tuple[int, int, int]) -> int:
    """`sizes`: tokens of the largest batch, and of all; bytes of a number of the model."""
    batch, tokens, size = sizes
    columns = site.units * site.columns

    def matrices(count: tuple[float, float]) -> int:
        square = count[0]
        if method == "stat":
            square += 2 * site.experts  # sums and factors of all of them
            square += HEADS if site.kind == "attention" else 0.0
        elif getattr(module_at(block, site.consumer), "bias", None) is not None:
            square += 1  # centred sums do not simply add up
        # A producer is adapted as the consumer is fitted, on as many columns as hidden states are wide.
        wide = outputs if method == "refit" else 0
        return int(8 * max(square * columns**2 + count[1] * columns * outputs, sum(count) * wide**2))

    # What a block computes of a batch, and what of it is copied and cast to be summed.
    walking = batch * (columns * (4 * size + 6) + outputs * (8 * size + 8))
    noted = noted_bytes(block, site, tokens) if method == "refit" else 0
    return noted + max(matrices(MATRICES[method]), matrices(SUMS[method]) + walking)


def free_memory() -> int:
    """Bytes that a process here may still take, as far as the system tells; else none are known to be."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
