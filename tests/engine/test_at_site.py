"""Errors of numbers name the site that they come from, once."""

import pytest

from statprune.anatomy.lookup import anatomy_of
from statprune.engine.measure import at_site, naming
from statprune.errors import NonFiniteError, NumericalError
from tests.tiny import tiny_model

SITE = anatomy_of(tiny_model("llama")).sites[1]
NAMED = r"^blocks\.0\.feed_forward, read by mlp\.down_proj: too large Nothing was written\.$"


@pytest.mark.parametrize("kind", [NonFiniteError, NumericalError])
def test_the_site_is_named_once(kind: type[Exception]) -> None:
    with pytest.raises(kind, match=NAMED), at_site(SITE), at_site(SITE):
        raise kind("too large")


def test_a_reader_names_it_too() -> None:
    def refuse(_: object) -> None:
        raise NonFiniteError("too large")

    with pytest.raises(NonFiniteError, match=NAMED):
        naming(refuse, SITE)(0)


def test_what_another_process_has_told_and_other_errors_stay_as_they_are() -> None:
    told = NonFiniteError("rank 1: blocks.2.attention: too large")
    told.told = True  # type: ignore[attr-defined]
    for error in (told, ValueError("something else")):
        with pytest.raises(type(error)) as raised, at_site(SITE):
            raise error
        assert raised.value is error
