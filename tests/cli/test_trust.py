"""Nothing that comes with a model or with data is run, whatever it is asked for."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Command

FILES = (
    "evil.py", "modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "processing_evil.py",
    "modeling_statprune.py", "__init__.py", "sitecustomize.py", "conftest.py", "torch.py", "json.py",
    "llama.py", "custom_generate/generate.py",
)  # fmt: skip
AUTO = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoProcessor", "AutoImageProcessor")
COMMANDS = (
    "inspect llama",
    "compress llama --data llama/text.txt --samples 12 --keep 0.5 --out out",
    "plan llama --data llama/text.txt --samples 12 --out measured",
    "evaluate llama --data llama/text.txt --max-tokens 64",
    "export llama --to gguf --no-tokenizer",
    "evaluate llama --data llama --max-tokens 64",
)
KINDS = ("known", "no class", "own class", "own type", "own tokenizer", "own processor")


def lay(folder: Path, marker: Path, kind: str) -> None:
    """Code in every file that anything may import, and settings that ask for it."""
    code = f"open({str(marker)!r}, 'a').write(__file__)\nclass Evil: pass\n"
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)

    def said(name: str, **values: object) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | values))

    said("config.json", auto_map=dict.fromkeys(AUTO, "evil.Evil"))
    said("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    if kind in ("no class", "own class"):
        said("config.json", architectures=[] if kind == "no class" else ["Evil"])
    elif kind == "own type":
        said("config.json", model_type="evil")
    elif kind == "own tokenizer":
        said("tokenizer_config.json", tokenizer_class="Evil")
    elif kind == "own processor":
        said(
            "preprocessor_config.json", image_processor_type="Evil", auto_map=dict.fromkeys(AUTO, "evil.Evil")
        )


@pytest.fixture
def evil(
    request: pytest.FixtureRequest, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The marker that the code would make; the folder `llama` where the command runs holds the code."""
    shutil.copytree(world / "llama", tmp_path / "llama")
    shutil.copyfile(world / "text.txt", tmp_path / "llama" / "text.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 - who asks gets no answer
    lay(tmp_path / "llama", tmp_path / "marker", request.param)
    return tmp_path / "marker"


@pytest.mark.filterwarnings("ignore::statprune.errors.StatpruneWarning")
@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("evil", KINDS, indirect=True)
def test_no_code_of_a_model_is_run(evil: Path, arguments: str, command: Command) -> None:
    ended = command(*shlex.split(arguments))
    assert ended.code in (0, 2), ended.err
    assert not evil.exists(), f"run: {evil.read_text()}"


@pytest.mark.audit
@pytest.mark.parametrize("arguments", ["benchmark llama --repeats 1 --seq-len 8", "export llama --to onnx"])
@pytest.mark.parametrize("evil", ["known"], indirect=True)
def test_nor_in_other_processes(evil: Path, arguments: str, command: Command) -> None:
    ended = command(*shlex.split(arguments))
    assert (ended.code, evil.exists()) == (0, False)


def test_the_code_would_have_been_seen(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers runs it where it is told to trust it."""
    from transformers import AutoConfig  # noqa: PLC0415 - the others ask the command line

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "cache"))
    shutil.copytree(world / "llama", tmp_path / "llama")
    lay(tmp_path / "llama", tmp_path / "marker", "own type")
    with pytest.raises(AttributeError):
        AutoConfig.from_pretrained(tmp_path / "llama", trust_remote_code=True)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["data", "data/data.py"])
def test_no_script_of_data_is_run(name: str, command: Command, world: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/data.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'a')\n")
    command("evaluate", world / "llama", "--data", tmp_path / name, "--max-tokens", 64)
    assert not (tmp_path / "marker").exists()


def test_nobody_trusts_code_by_himself() -> None:
    """No call in this package lets transformers or datasets run code of a folder, or read a pickle."""
    source = Path(__file__).parents[2] / "src/statprune"
    files = [path for path in source.rglob("*.py")]
    text = {path: path.read_text(encoding="utf-8") for path in files}
    for wrong in ("trust_remote_code=True,", "torch.load(", "allow_pickle=True", "weights_only=False"):
        assert not [path for path, content in text.items() if wrong in content], wrong
