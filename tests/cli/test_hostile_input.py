"""Models, plans and measurements that are damaged or hostile are refused; the disk stays as it was.

Each row is what is done to a good folder, the command, and what its one line must hold.
"""

import shlex
import shutil
from pathlib import Path

import pytest
import torch

from tests.cli import hostile as do
from tests.cli.conftest import Command
from tests.cli.hostile import COMPRESS, JSON, Row, state
from tests.cli.hostile_measurements import MEASUREMENTS
from tests.cli.hostile_texts import CONFIGS, PLANS
from tests.cli.hostile_weights import LINKS, SAFETENSORS, SHARDS
from tests.cli.test_bad_input import no_pass

__all__ = ["no_pass"]


ROWS: dict[str, Row] = {
    f"{group}: {name}": row
    for group, rows in {
        "safetensors": SAFETENSORS,
        "shards": SHARDS,
        "links": LINKS,
        "config": CONFIGS,
        "plan": PLANS,
        "measurement": MEASUREMENTS,
    }.items()
    for name, row in rows.items()
}


@pytest.fixture(scope="module")
def good(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good folders: a decoder, an encoder, a measurement, and what was made of it."""
    from statprune import compress, plan  # noqa: PLC0415 - the table alone does without

    root = tmp_path_factory.mktemp("good")
    for name in ("llama", "bert"):
        shutil.copytree(world / name, root / name)
    shutil.copyfile(world / "text.txt", root / "text.txt")
    plan(str(root / "llama"), data=str(root / "text.txt"), out=root / "measured", samples=12, seq_len=32)
    compress(measured=root / "measured", keep=0.7, out=root / "made")
    return root


@pytest.fixture
def place(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the good folders, where the command runs."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    do.changed(JSON, "model", to=str(tmp_path / "llama"))(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("no_pass")
@pytest.mark.parametrize("row", list(ROWS))
def test_what_was_tampered_with_is_refused(row: str, command: Command, place: Path) -> None:
    deed, arguments, says = ROWS[row]
    deed(place)
    before = state(place)
    ended = command(*shlex.split(arguments))
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, f"more than one line:\n{ended.err}"
    for wanted in says:
        choices = wanted.split(" | ")
        assert any(choice in ended.err for choice in choices), f"{wanted!r} is not in {ended.err!r}"
    assert all(each.isprintable() for each in ended.err[:-1])
    assert state(place) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_plain_dtypes_are_taken(dtype: torch.dtype, command: Command, place: Path) -> None:
    do.cast(dtype, do.UP)(place)
    assert command(*shlex.split(COMPRESS), "--dry-run").code == 0


def test_good_shards_and_links_within_the_folder_are_taken(command: Command, place: Path) -> None:
    do.sharded(lambda _, folder: do.linked("llama/LICENSE", "config.json")(folder.parent))(place)
    assert command(*shlex.split(COMPRESS), "--dry-run").code == 0


def test_folders_of_the_hubs_cache_are_links_and_are_taken(command: Command, place: Path) -> None:
    snapshot, blobs = place / "models--a--b/snapshots/0", place / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted((place / "llama").iterdir())):
        shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert command(*shlex.split(COMPRESS.replace("llama", str(snapshot))), "--dry-run").code == 0


def test_a_turned_bit_of_a_weight_is_seen_only_where_it_is_no_number(command: Command, place: Path) -> None:
    """A safetensors file has no checksum: another finite number is another model."""
    do.turned(do.WEIGHTS, -50)(place)
    assert command(*shlex.split(COMPRESS), "--dry-run").code == 0
