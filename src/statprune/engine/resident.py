"""Memory that this process takes, and has taken."""

import re
import sys
from pathlib import Path

import torch


def peak_memory() -> int | None:
    """The most so far, in bytes: on the GPU where one is used, else in memory; None where nothing tells."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return peak_resident()


def resident() -> int | None:
    """Memory now, in bytes; None where the system does not tell (Linux does)."""
    return _of_status("VmRSS")


def peak_resident() -> int | None:
    """The most memory so far, in bytes; None where the system does not tell.

    Linux's getrusage would not do: its largest size begins with that of the process that started this one.
    """
    found = _of_status("VmHWM")
    if found is not None:
        return found
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, KiB elsewhere


def _of_status(name: str) -> int | None:
    """A size that Linux tells of this process, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024
