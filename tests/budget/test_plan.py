"""Plans: what fits, what is refused, and with what words."""

import json
from pathlib import Path

import pytest

from statprune.anatomy.sites import Site
from statprune.budget.plan import Plan, fit, full, read
from statprune.errors import PlanError


def site(name: str, units: int) -> Site:
    block, kind = int(name.split(".")[1]), name.rpartition(".")[2]
    return Site(name, block, kind, units, 1, (), "consumer")


SITES = [site("blocks.0.attention", 4), site("blocks.0.feed_forward", 16)]


def test_sites_that_are_not_named_stay_full() -> None:
    assert fit({"blocks.0.attention": 2}, SITES).widths == {
        "blocks.0.attention": 2,
        "blocks.0.feed_forward": 16,
    }


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ({}, "names no site"),
        ({"blocks.1.attention": 2}, "'blocks.1.attention', which this model does not have"),
        ({"blocks.0.attention": 0}, "cannot keep 0 units; give an integer from 1 to 4"),
        ({"blocks.0.attention": 5}, "cannot keep 5 units; give an integer from 1 to 4"),
        ({"blocks.0.attention": 2.0}, "cannot keep 2.0 units"),
        ({"blocks.0.attention": True}, "cannot keep True units"),
        ({"blocks.0.attention": "2"}, "cannot keep '2' units"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_value_place_and_remedy(widths: dict, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        fit(widths, SITES)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not a readable plan file"),
        ("[1]", '"widths" is missing'),
        ("{}", '"widths" is missing'),
        ('{"widths": {}}', "names no site"),
        ('{"format": 7, "widths": {"blocks.0.attention": 1}}', "plan format 7"),
        ("\xff\xfe", "not a readable plan file"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(PlanError, match=said):
        read(path, SITES)


def test_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such plan file"):
        read(tmp_path / "plan.json", SITES)


def test_a_plan_that_was_written_is_read_again(tmp_path: Path) -> None:
    plan = fit({"blocks.0.attention": 3, "blocks.0.feed_forward": 8}, SITES)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.to_json()))
    assert read(path, SITES).widths == plan.widths


def test_uniform_means_one_width_a_kind() -> None:
    two = [*SITES, site("blocks.1.attention", 4), site("blocks.1.feed_forward", 16)]
    assert full(two).is_uniform()
    assert not Plan({**full(two).widths, "blocks.1.attention": 3}).is_uniform()
