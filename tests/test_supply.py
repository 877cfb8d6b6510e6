"""What is installed is pinned, and the pins with digests are the pins."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHA256 = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, str]:
    """Version by package."""
    found = re.findall(r"^([\w.-]+)==([\w.+!]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {normal(package): version for package, version in found}


def needed() -> set[str]:
    """The packages that pyproject.toml names for everybody."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {normal(re.split(r"[<>=\[ ]", each)[0]) for each in project["dependencies"]}


def test_what_everybody_installs_is_pinned_with_digests() -> None:
    hashed, pinned = pins("requirements-hashed.txt"), pins("constraints.txt")
    assert needed() <= hashed.keys()
    assert needed() <= pinned.keys()
    differing = {name: version for name, version in hashed.items() if pinned.get(name, version) != version}
    assert differing == {}, "make hashes writes the file anew"


def test_every_package_has_a_digest_for_each_of_its_files() -> None:
    text = (ROOT / "requirements-hashed.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(pins("requirements-hashed.txt"))
    assert all(SHA256.search(line) for line in lines)
