"""Exports as if llama.cpp were not there: tests that need it ask for it."""

import pytest

import statprune.export.gguf as target


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "runtime_version", lambda: None)
