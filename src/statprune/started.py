"""How many processes torchrun, or its like, has started, by the variables that it sets."""

import os


def started_many() -> int:
    """Processes of the run, this one among them; 1 where nothing says so."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdecimal() and "RANK" in os.environ else 1


def own_number() -> int:
    """The rank of this process; 0 where it is alone."""
    number = os.environ.get("RANK", "0")
    return int(number) if number.isdecimal() and started_many() > 1 else 0
