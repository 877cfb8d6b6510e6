"""What every target of an export needs: its library."""

from importlib.util import find_spec

from statprune.errors import InputError


def require_library(library: str, extra: str) -> None:
    """Raise InputError, naming the extra that brings it, if `library` is not installed."""
    if find_spec(library) is None:
        raise InputError(
            f"this export needs the library {library}, which is not installed. "
            f"Install it with `pip install 'statprune[{extra}]'`."
        )
