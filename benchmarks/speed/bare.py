"""Imported before statprune on a machine with a GPU that has torch and transformers alone.

scipy factors on the CPU only; where it is missing, names of its stand in, and whoever calls one fails.
"""

import importlib.util
import sys
import types

WITHOUT_SCIPY = importlib.util.find_spec("scipy") is None


def _nothing(_: str) -> None:
    return None


if WITHOUT_SCIPY:
    for _name in ("scipy", "scipy.linalg", "scipy.linalg.lapack", "scipy.optimize", "scipy.sparse"):
        sys.modules[_name] = types.ModuleType(_name)
        sys.modules[_name].__dict__["__getattr__"] = _nothing
