"""Text before and after: greedy, bounded, and refused in words."""

from pathlib import Path

import pytest

import statprune
from statprune.errors import InputError
from statprune.explore.choices import opened
from statprune.explore.samples import sample


@pytest.fixture(scope="module")
def thin(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("thin") / "thin"
    statprune.compress(measured=measured / "of-llama", keep=0.4, out=out)
    return out


def test_both_go_on_with_the_same_prompt(measured: Path, thin: Path) -> None:
    explored = opened(measured / "of-llama")
    found = sample(explored, str(thin), "some words", 8)
    assert found == sample(explored, str(thin), "some words", 8)
    assert sample(explored, str(measured / "llama"), "some words", 8).thin == found.dense
    assert found.thin != found.dense


@pytest.mark.parametrize(
    ("folder", "prompt", "tokens", "says"),
    [
        ("", "words", 8, "no compressed folder is named"),
        ("nowhere", "words", 8, "nowhere is no folder"),
        ("thin", " ", 8, "the prompt is empty"),
        ("thin", "w" * 5000, 8, "5000 characters"),
        ("thin", "words", 257, "257 new tokens"),
        ("thin", "words " * 40, 8, "tokens; with 8 new ones the model takes"),
    ],
)
def test_what_cannot_be_written_is_refused(
    measured: Path, thin: Path, folder: str, prompt: str, tokens: int, says: str
) -> None:
    place = str(thin) if folder == "thin" else folder
    with pytest.raises(InputError, match=says):
        sample(opened(measured / "of-llama"), place, prompt, tokens)


def test_an_encoder_writes_nothing(measured: Path, thin: Path) -> None:
    with pytest.raises(InputError, match="is an encoder"):
        sample(opened(measured / "of-bert"), str(thin), "words", 8)
