"""Bytes in words."""

import pytest

from statprune.byte_size import byte_size


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"),
        (7e9, "7 GB"), (49_387_594_547, "49.4 GB"), (123_456, "123 kB"), (999_499_999, "999 MB"),
        (999_999_999, "1000 MB"), (2e15, "2000 TB"),
    ],
)  # fmt: skip
def test_three_digits_in_the_largest_unit(number: float, words: str) -> None:
    assert byte_size(number) == words
