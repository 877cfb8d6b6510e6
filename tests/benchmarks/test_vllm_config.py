"""vLLM's own converter, where vLLM is installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.audit
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_reads_the_heads_of_every_block(tmp_path: Path) -> None:
    found = find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    script = """
import sys
from benchmarks import protocol
protocol.RESULTS = __import__("pathlib").Path(sys.argv.pop())
from benchmarks.serving.vllm_config import main
main()
"""
    command = [sys.executable, "-c", script, str(Path(found.origin).parents[1]), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = (tmp_path / "vllm-config.md").read_text().splitlines()
    for name in ("llama", "mistral", "qwen2", "qwen3", "bert", "gpt2", "opt"):
        assert next(row for row in rows if row.startswith(f"| {name} |")).endswith("| yes |")
