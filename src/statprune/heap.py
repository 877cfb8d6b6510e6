"""What the C library keeps of freed memory, handed back to the system.

glibc keeps what is freed in its heap for the next time. Pieces that live on lie between, so that with models
of real size a process grows from run to run by what it took at the most, though nothing is held.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")


def give_back() -> None:
    """Have the system take what is free inside the heap, where the C library can (glibc: malloc_trim)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def giving_back(work: Callable[Given, Found]) -> Callable[Given, Found]:
    """The same function; when it has ended, well or badly, what it has freed is given back."""

    @wraps(work)
    def worked(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        try:
            return work(*args, **kwargs)
        finally:
            give_back()

    return worked
