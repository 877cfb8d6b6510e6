"""What lm-evaluation-harness does to the process that it runs in, gathered or undone."""

import io
import logging
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np
import torch

_ALWAYS_SAID = (
    "`pretrained` model kwarg",
    "Passed an already-initialized model",
    "Overwriting default num_fewshot",
)
_DEFAULTS = "is not. using default"
"""Of tasks that name a metric and leave its particulars to the harness, as most do."""
_CUT = ("Combined length of context", "Left truncation applied")


@dataclass(eq=False)
class Said(logging.Handler):
    """What the harness warns of: inputs it cut off, counted, and all else, each once."""

    cut: int = 0
    other: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of one message."""
        text = " ".join(record.getMessage().split())
        if text.startswith(_CUT):
            self.cut += 1
        elif not text.startswith(_ALWAYS_SAID) and _DEFAULTS not in text and text not in self.other:
            self.other.append(text)


class _Nowhere(io.StringIO):
    """Takes what the harness prints; progress bars of rich go on to the real stream."""

    def __init__(self, real: TextIO) -> None:
        super().__init__()
        self.rich_proxied_file = real


@contextmanager
def seeds_put_back() -> Iterator[None]:
    """The harness sets seeds for the whole process, and draws while it reads tasks."""
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - to put it back
    try:
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002


@contextmanager
def listening() -> Iterator[Said]:
    """What the harness warns of is gathered, not printed; its loggers are as before afterwards."""
    logger = logging.getLogger("lm_eval")
    before = (list(logger.handlers), logger.propagate, logger.level)
    said = Said()
    logger.handlers, logger.propagate = [said], False
    logger.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        logger.handlers, logger.propagate, level = before
        logger.setLevel(level)


@contextmanager
def silent() -> Iterator[Callable[[Callable[[], None]], None]]:
    """The harness prints, and no option turns its bars off; what is yielded runs with the real stderr."""
    real = sys.stderr

    def shown(call: Callable[[], None]) -> None:
        with redirect_stderr(real):
            call()

    with redirect_stdout(io.StringIO()), redirect_stderr(_Nowhere(real)):
        yield shown
