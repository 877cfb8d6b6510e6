"""A folder is pushed to the Hub, here a server on this machine: what arrives, and what is refused before."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

import statprune
from statprune.checkpoint.unfinished import folder_for
from statprune.errors import HubError, InputError, ModelError, OutputError
from statprune.hub import files_of, push, target_of
from tests.hub_server import HASH, Hub, hub_server
from tests.saved import save_tiny, sentences


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Tests are offline; this machine is not."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub_server() as server:
        yield server


def api_of(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_of_mine")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pushed")
    save_tiny(root / "dense", "llama")
    (root / "text.txt").write_text("\n\n".join(sentences(60)))
    statprune.compress(
        str(root / "dense"), data=str(root / "text.txt"), keep=0.7, samples=8, seq_len=32, out=root / "made"
    )
    return root / "made"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    copy = tmp_path / "made"
    copy.mkdir()
    for path in made.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_what_is_in_the_folder_arrives_and_nothing_else(hub: Hub, folder: Path) -> None:
    (folder / "results").mkdir()
    (folder / "results" / "001-evaluation-this.json").write_text("{}")
    for name in (".secret", "x.partial", "results/.hidden"):
        (folder / name).write_text("not this")
    (folder.parent / "outside.txt").write_text("not this")
    pushed = push(folder, "small", api=api_of(hub))
    held = hub.files("me/small")
    wanted = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()}
    wanted -= {".secret", "x.partial", "results/.hidden"}
    assert set(held) - {".gitattributes"} == wanted == set(pushed.files)
    assert all(held[name] == (folder / name).read_bytes() for name in wanted)
    assert hub.repos["me/small"]["private"] is True
    assert (pushed.repo, pushed.commit, pushed.public) == ("me/small", HASH, False)
    assert pushed.url == f"{hub.url}/me/small"


def test_public_only_where_it_is_asked_for(hub: Hub, folder: Path) -> None:
    assert push(folder, "us/open", public=True, api=api_of(hub)).public
    assert hub.repos["us/open"]["private"] is False
    hub.repos["us/empty"] = {"private": False, "files": {}}
    with pytest.raises(InputError, match="us/empty is public"):
        push(folder, "us/empty", api=api_of(hub))
    hub.repos["us/closed"] = {"private": True, "files": {}}
    push(folder, "us/closed", public=True, api=api_of(hub))
    assert hub.repos["us/closed"]["private"] is False


def test_files_that_are_there_are_replaced_only_where_it_is_asked_for(hub: Hub, folder: Path) -> None:
    hub.repos["me/full"] = {"private": True, "files": {".gitattributes": b"", "mine.bin": b"mine"}}
    with pytest.raises(InputError, match=r"me/full exists and holds 1 files \(mine.bin .*--replace"):
        push(folder, "me/full", api=api_of(hub))
    assert set(hub.files("me/full")) == {".gitattributes", "mine.bin"}
    push(folder, "me/full", replace=True, api=api_of(hub))
    assert set(hub.files("me/full")) - {".gitattributes"} == set(files_of(folder))


def test_what_was_not_verified_is_not_pushed(hub: Hub, folder: Path) -> None:
    def refused(error: type[Exception], match: str, path: Path = folder) -> None:
        with pytest.raises(error, match=match):
            push(path, "small", api=api_of(hub))

    folder_for(folder).mkdir()
    refused(OutputError, r"did not end.*--resume")
    folder_for(folder).rmdir()
    inner = folder.parent / "other.unfinished" / "output.partial"
    inner.parent.mkdir()
    folder.rename(inner)
    refused(OutputError, "did not end", inner)
    inner.rename(folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1])
    refused(ModelError, "damaged or cut short")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "link").symlink_to(folder.parent)
    refused(OutputError, r"is a link to .*outside the folder")
    (folder / "link").unlink()
    (folder / "statprune.json").unlink()
    refused(InputError, "holds no statprune.json")
    assert hub.asked == []


def test_who_may_not_write_is_told_before(hub: Hub) -> None:
    api = api_of(hub)
    assert target_of("small", api=api).repo == "me/small"
    with pytest.raises(InputError, match="the token is that of me, us, not of them"):
        target_of("them/small", api=api)
    with pytest.raises(InputError, match="is no name of a repository"):
        target_of("me/sm all", api=api)
    hub.who |= {"auth": {"accessToken": {"role": "read"}}}
    with pytest.raises(InputError, match="may only read"):
        target_of("small", api=api)
    hub.refuses = 401
    with pytest.raises(InputError, match="refuses the token"):
        target_of("small", api=api)
    assert hub.repos == {}


def test_a_hub_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(HubError, match="the Hub cannot be reached"):
        target_of("small", api=HfApi(endpoint="http://127.0.0.1:9", token="hf_of_mine"))


def test_without_a_token_nothing_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no token for the Hub"):
        target_of("small", api=HfApi(endpoint=hub.url))
    assert hub.asked == []


def test_an_upload_that_fails_leaves_the_folder_and_says_how_to_go_on(hub: Hub, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    hub.refuses = 507
    with pytest.raises(
        HubError, match=r"could not be pushed.*It is whole; go on with: statprune push .*me/small$"
    ):
        push(folder, "small", api=api_of(hub))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    hub.refuses = 0
    push(folder, "small", api=api_of(hub))
    assert "README.md" in hub.files("me/small")


def statprune_in_a_process(
    hub: Hub, home: Path, *arguments: object, token: str = "hf_of_mine"
) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
    }
    environment |= {"HF_TOKEN": token} if token else {}
    done = subprocess.run(
        [sys.executable, "-m", "statprune", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout, done.stderr


def test_compress_pushes_what_it_has_made(hub: Hub, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = (
        "compress",
        made.parent / "dense",
        "--data",
        made.parent / "text.txt",
        "--keep",
        0.7,
        "--samples",
        8,
    )
    run = (*run, "--seq-len", 32, "--out", out, "--push-to-hub", "us/small", "--json")
    code, told, err = statprune_in_a_process(hub, tmp_path, *run, token="")
    assert code == 2, err
    assert "no token" in json.loads(told)["error"]["message"]
    assert not out.exists()
    code, told, err = statprune_in_a_process(hub, tmp_path, *run)
    assert code == 0, err
    assert json.loads(told)["pushed"]["url"] == f"{hub.url}/us/small"
    assert hub.files("us/small")["README.md"] == (out / "README.md").read_bytes()
    assert hub.asked.index("GET /api/whoami-v2") < hub.asked.index("POST /api/repos/create")
    code, told, err = statprune_in_a_process(hub, tmp_path, "push", out, "small")
    assert code == 0, err
    assert f"{hub.url}/me/small (private)" in told
