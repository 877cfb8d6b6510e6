"""What people install: built from the source distribution, used in an environment that has nothing else."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.audit

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-supply" / "bin"
"""Where `make audit` has installed what builds and lists."""
BARE = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
BARE |= {"OMP_NUM_THREADS": "1"}

CONSUMER = """
from typing import assert_type

import statprune

result = statprune.compress("folder", keep=0.5, data=["some text"], out="smaller")
assert_type(result, statprune.Result)
assert_type(result.plan, statprune.Plan)
assert_type(statprune.plan("folder", data=["some text"]), statprune.Measurement)
assert_type(statprune.benchmark("smaller", against="folder"), statprune.Benchmark)
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=BARE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("built")
    run(TOOLS / "pyproject-build", "--outdir", out, ROOT)
    return out


def hashed(folder: Path) -> Path:
    """The packages whose files must have the digests of requirements-hashed.txt.

    Not torch and what it brings: machines have builds of their own of it, for their processors.
    """
    own = ("torch==", "triton==", "nvidia-", "cuda-")
    packages = (ROOT / "requirements-hashed.txt").read_text().replace("\\\n", " ").splitlines()
    chosen = [line for line in packages if not line.startswith(own)]
    assert len(packages) - len(chosen) > 10
    (folder / "hashed.txt").write_text("\n".join(chosen))
    return folder / "hashed.txt"


@pytest.fixture(scope="module")
def alone(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that holds the wheel and what it needs, nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=True)
    (wheel,) = built.glob("*.whl")
    pip = (folder / "bin" / "pip", "install", "--quiet")
    run(*pip, "--require-hashes", "--no-deps", "--requirement", hashed(folder))
    run(*pip, "--constraint", ROOT / "constraints.txt", wheel)
    return folder / "bin"


def test_the_wheel_holds_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    listed = run("git", "ls-files", "src/statprune").split()
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("statprune-")}
    assert inside == {name.removeprefix("src/") for name in listed}
    assert "statprune/py.typed" in inside


def test_the_source_distribution_holds_what_git_does(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert set(run("git", "ls-files").split()) <= inside
    assert not any(name.startswith((".venv", "dist", "site")) for name in inside)


def test_the_demonstration_runs_where_nothing_else_is(alone: Path, tmp_path: Path) -> None:
    run(alone / "pip", "check")
    told = json.loads(run(alone / "statprune", "demo", "--json", cwd=tmp_path))
    assert len(told["rows"]) == 5
    again = run(alone / "statprune", "inspect", tmp_path / told["rows"][-1]["folder"], "--json", cwd=tmp_path)
    assert json.loads(again)["model_type"] == "llama"


def test_the_public_api_is_typed_for_those_who_use_it(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER, encoding="utf-8")
    checker = (sys.executable, "-m", "mypy", "--strict", "--python-executable", alone / "python")
    run(*checker, "consumer.py", cwd=tmp_path)
    (tmp_path / "wrong.py").write_text('import statprune\nstatprune.compress("folder", keep="half").plam\n')
    done = subprocess.run(
        [*map(str, checker), "wrong.py"], cwd=tmp_path, capture_output=True, text=True, check=False, env=BARE
    )
    assert '"Result" has no attribute "plam"' in done.stdout


def test_the_bill_of_materials_names_what_is_needed(alone: Path, tmp_path: Path) -> None:
    made = tmp_path / "sbom.json"
    run(TOOLS / "cyclonedx-py", "environment", "--of", "JSON", "-o", made, alone / "python")
    listed = {each["name"]: each for each in json.loads(made.read_text())["components"]}
    for name in ("torch", "transformers", "safetensors", "scipy", "huggingface_hub"):
        assert listed[name]["version"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    own = {"statprune", "pip", "setuptools"}
    assert {name.lower().replace("_", "-") for name in listed} <= pinned | own
