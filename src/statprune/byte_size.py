"""Bytes, as people say them."""

UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def byte_size(number: float) -> str:
    """Bytes in the largest unit of a thousand that fits, to three digits: 1.5 GB is 1.5e9 bytes."""
    for name, unit in UNITS:
        if number >= unit:
            return f"{number / unit:.3g} {name}" if number < 999.5 * unit else f"{number / unit:.0f} {name}"
    return f"{number:.0f} bytes"
