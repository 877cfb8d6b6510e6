"""Floors, protected blocks and pins: what they allow, and what of them is refused."""

import json
import re

import pytest

from statprune.anatomy.parts import SiteKind
from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost
from statprune.budget.restrictions import Restrictions
from statprune.errors import PlanError

BLOCKS = 3


def site(block: int, kind: SiteKind, units: int) -> Site:
    return Site(f"blocks.{block}.{kind}", block, kind, units, 1, (), "consumer", parameters_per_unit=1)


# The last block is narrower, as in a model that was pruned before.
SITES = [
    each
    for block, heads, neurons in ((0, 4, 32), (1, 4, 32), (2, 2, 12))
    for each in (site(block, "attention", heads), site(block, "feed_forward", neurons))
]
BY_NAME = {each.name: each for each in SITES}


def widths(name: str, restrictions: Restrictions) -> list[int]:
    return Budget(0.5, Cost("params", 1), 8, restrictions).widths(BY_NAME[name], BLOCKS)


def test_nothing_restricted_allows_everything() -> None:
    assert not Restrictions()
    Restrictions().check(SITES)
    assert widths("blocks.0.attention", Restrictions()) == [1, 2, 3, 4]
    assert widths("blocks.0.feed_forward", Restrictions()) == [8, 16, 24, 32]
    assert widths("blocks.2.feed_forward", Restrictions()) == [8, 12]


def test_the_higher_of_two_floors_counts_and_no_floor_is_above_full_width() -> None:
    floors = {"attention": 3, "blocks.0.attention": 2, "blocks.1.attention": 4, "feed_forward": 17}
    limits = Restrictions(floors)
    limits.check(SITES)
    assert bool(limits)
    assert widths("blocks.0.attention", limits) == [3, 4]
    assert widths("blocks.1.attention", limits) == [4]
    assert widths("blocks.2.attention", limits) == [2]
    assert widths("blocks.1.feed_forward", limits) == [24, 32]
    assert widths("blocks.2.feed_forward", limits) == [12]


def test_a_floor_of_one_site_is_of_that_site() -> None:
    limits = Restrictions({"blocks.1.feed_forward": 20})
    limits.check(SITES)
    assert widths("blocks.1.feed_forward", limits) == [24, 32]
    assert widths("blocks.0.feed_forward", limits) == [8, 16, 24, 32]
    assert widths("blocks.1.attention", limits) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("protect", "kept"),
    [((0,), {0}), ((-1,), {2}), ((-3,), {0}), ((1, -2), {1}), ((2, 0), {0, 2}), ((), set())],
)
def test_protected_blocks_keep_every_unit_and_negative_ones_count_from_the_last(
    protect: tuple[int, ...], kept: set[int]
) -> None:
    limits = Restrictions(protect=protect)
    limits.check(SITES)
    assert bool(limits) == bool(kept)
    found = {each.block for each in SITES if widths(each.name, limits) == [each.units]}
    assert found == kept


def test_a_pin_is_the_only_width_and_need_not_be_a_multiple() -> None:
    limits = Restrictions(pins={"blocks.0.feed_forward": 13, "blocks.1.attention": 1})
    limits.check(SITES)
    assert widths("blocks.0.feed_forward", limits) == [13]
    assert widths("blocks.1.attention", limits) == [1]
    assert widths("blocks.1.feed_forward", limits) == [8, 16, 24, 32]


def test_pins_that_agree_with_floors_and_protection_are_accepted() -> None:
    floors, pins = {"attention": 3}, {"blocks.0.attention": 3, "blocks.1.feed_forward": 32}
    Restrictions(floors, (1,), pins).check(SITES)
    # A floor above the full width of a narrow block is that width.
    Restrictions(floors, (), {"blocks.2.attention": 2}).check(SITES)


WHOLE = "give a whole number from 1 to"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Restrictions(protect=(3,)), "protected block 3: this model has blocks 0 to 2"),
        (Restrictions(protect=(0, -4)), "protected block -4: this model has blocks 0 to 2"),
        (Restrictions(protect=(True,)), "protected block True"),
        (Restrictions(protect=(1.0,)), "protected block 1.0"),
        (Restrictions(protect=("0",)), "protected block '0'"),
        (
            Restrictions({"heads": 2}),
            "'heads' is no site of this model; give blocks.0.attention ... blocks.2",
        ),
        (Restrictions({"heads": 2}), "or a kind, attention or feed_forward"),
        (Restrictions({"attention": 5}), f"attention: cannot keep 5 units; {WHOLE} 4"),
        (Restrictions({"feed_forward": 0}), f"feed_forward: cannot keep 0 units; {WHOLE} 32"),
        (Restrictions({"feed_forward": -1}), "cannot keep -1 units"),
        (
            Restrictions({"blocks.2.feed_forward": 13}),
            f"blocks.2.feed_forward: cannot keep 13 units; {WHOLE} 12",
        ),
        (Restrictions({"attention": True}), "cannot keep True units"),
        (Restrictions({"attention": 2.0}), "cannot keep 2.0 units"),
        (Restrictions({"attention": "2"}), "cannot keep '2' units"),
        (Restrictions(pins={"blocks.3.attention": 1}), "'blocks.3.attention' is no site of this model"),
        (Restrictions(pins={"attention": 1}), "'attention' is no site of this model"),
        (Restrictions(pins={"blocks.0.attention": 0}), f"blocks.0.attention: cannot keep 0 units; {WHOLE} 4"),
        (Restrictions(pins={"blocks.2.attention": 3}), f"blocks.2.attention: cannot keep 3 units; {WHOLE} 2"),
        (Restrictions(pins={"blocks.0.attention": None}), "cannot keep None units"),
        (
            Restrictions({"attention": 3}, (), {"blocks.1.attention": 2}),
            "blocks.1.attention is pinned to 2 units, below its floor 3",
        ),
        (
            Restrictions({"blocks.0.feed_forward": 9}, (), {"blocks.0.feed_forward": 8}),
            "blocks.0.feed_forward is pinned to 8 units, below its floor 9",
        ),
        (
            Restrictions({}, (-1,), {"blocks.2.feed_forward": 11}),
            "blocks.2.feed_forward is pinned to 11 units, but its block is protected",
        ),
    ],
)
def test_what_this_model_does_not_have_is_refused_with_value_place_and_remedy(
    limits: Restrictions, said: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(said)):
        limits.check(SITES)


def test_what_a_pin_may_be_is_not_told_as_a_kind() -> None:
    with pytest.raises(PlanError) as caught:
        Restrictions(pins={"heads": 2}).check(SITES)
    assert "kind" not in str(caught.value)


def test_json_holds_all_three() -> None:
    limits = Restrictions({"attention": 2}, (0, -1), {"blocks.1.feed_forward": 9})
    content = json.loads(json.dumps(limits.to_json()))
    assert Restrictions(**content).to_json() == limits.to_json()
    assert content == {"floors": {"attention": 2}, "protect": [0, -1], "pins": {"blocks.1.feed_forward": 9}}
