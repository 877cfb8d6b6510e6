"""What commands print for machines is JSON."""

import json
from math import inf, nan
from typing import Any

import pytest

from statprune.cli.show import as_json


def refused(constant: str) -> Any:
    raise ValueError(constant)


def test_numbers_that_json_does_not_have_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    as_json({"perplexity": inf, "rows": [(1.5, nan), {"least": -inf}], "text": "é"})
    printed = capsys.readouterr().out
    found = json.loads(printed, parse_constant=refused)
    assert found == {"perplexity": None, "rows": [[1.5, None], {"least": None}], "text": "é"}
