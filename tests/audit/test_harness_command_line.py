"""The harness's own command line on pruned folders, in processes of its own: the same figures as ours."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers

import statprune
from statprune.demo import EVALUATION, MODEL
from tests.checkpoint.folders import write
from tests.evaluation.harness_files import write_tasks
from tests.tiny import uneven_cut, uniform_cut

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.audit

TASKS = "own_both,own_wikitext"
WITHOUT = "import sys; sys.modules['statprune'] = None"
START = "from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
WAYS = {
    "stock": (WITHOUT, "uniform", ""),
    "trusted": (WITHOUT, "uneven", ",trust_remote_code=True"),
    "imported": ("import statprune", "uneven", ""),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("folders")
    stories = datasets.load_dataset("json", data_files=str(EVALUATION), split="train")["text"][:16]
    write_tasks(place / "tasks", [" ".join(story.split()[:36]) for story in stories])
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    for name, cut in (("uniform", uniform_cut), ("uneven", uneven_cut)):
        model = cut(transformers.AutoModelForCausalLM.from_pretrained(MODEL).eval())
        assert write(model, place / name, tokenizer=tokenizer).stock is (name == "uniform")
    return place


def own_command_line(first: str, folder: Path, more: str, tasks: Path, out: Path) -> dict[str, Any]:
    """What `lm_eval` writes of the folder, after `first` has been run in its process."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", f"{first}\n{START}", "--model", "hf", "--device", "cpu"),
            *("--model_args", f"pretrained={folder}{more}", "--tasks", TASKS),
            *("--include_path", str(tasks), "--output_path", str(out), "--batch_size", "3"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_MODULES_CACHE": str(out / "modules")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (written,) = out.glob("**/results_*.json")
    found: dict[str, Any] = json.loads(written.read_text())
    return found


@pytest.mark.parametrize("way", list(WAYS))
def test_its_figures_are_ours(way: str, root: Path, tmp_path: Path) -> None:
    first, name, more = WAYS[way]
    theirs = own_command_line(first, root / name, more, root / "tasks", tmp_path)
    ours = statprune.harness(root / name, TASKS, tasks_dir=root / "tasks", batch_size=3, device="cpu")
    assert len(ours.scores) == 7
    for score in ours.scores:
        key = f"{score.metric},{score.filter}"
        assert score.value == theirs["results"][score.task][key], (score.task, key)
        stderr = theirs["results"][score.task][key.replace(",", "_stderr,")]
        assert score.stderr == (None if stderr == "N/A" else stderr)
    assert ours.protocol["harness"].endswith(theirs["lm_eval_version"])
    assert list(ours.protocol["seeds"].values()) == [
        theirs["config"][f"{kind}_seed"] for kind in ("random", "numpy", "torch", "fewshot")
    ]


def test_without_either_the_per_layer_folder_is_no_silent_success(root: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Error"):
        own_command_line(WITHOUT, root / "uneven", "", root / "tasks", tmp_path)
