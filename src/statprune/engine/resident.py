"""Memory that this process has taken."""

import sys

import torch


def peak_memory() -> int | None:
    """The most so far, in bytes: on the GPU where one is used, else in memory; None where nothing tells."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return peak_resident()


def peak_resident() -> int | None:
    """The most memory so far, in bytes; None where the system does not tell."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, KiB elsewhere
