"""The demonstration's model comes out as tests/golden.json says; tests/golden.py renews that."""

import json
from pathlib import Path

import pytest

from tests.golden import METHODS, golden

TOLERANCE = 1e-3
"""Relative, of errors and perplexity: another processor adds in another order."""


@pytest.mark.parametrize("method", METHODS)
def test_golden(method: str) -> None:
    wanted = json.loads(Path(__file__).with_name("golden.json").read_text())[method]
    found = golden(method)
    assert found["widths"] == wanted["widths"]
    assert found["kept"] == wanted["kept"]
    assert found["errors"] == pytest.approx(wanted["errors"], rel=TOLERANCE)
    assert found["numbers"] == pytest.approx(wanted["numbers"], rel=TOLERANCE)
