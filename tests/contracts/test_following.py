"""A block's own config: its own widths, all else read from the one that blocks share."""

from copy import copy, deepcopy
from types import SimpleNamespace

import pytest

from statprune.surgery.follow import OwnConfig


def test_what_is_not_its_own_is_read_from_what_is_shared() -> None:
    shared = SimpleNamespace(heads=4, size=8, __special__=1)
    own = OwnConfig(shared)
    own.heads = 2
    assert (own.heads, own.size, shared.heads) == (2, 8, 4)
    shared.size = 9
    assert (own.size, copy(own).size, deepcopy(own).heads) == (9, 9, 2)
    with pytest.raises(AttributeError, match="nothing"):
        own.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="__special__"):
        own.__special__  # noqa: B018


def test_one_that_is_empty_says_so() -> None:
    with pytest.raises(AttributeError):
        OwnConfig.__new__(OwnConfig).heads  # noqa: B018
