"""What llama.cpp makes of a file, in a process of its own: where it disagrees, it may abort.

`python -m statprune.export.gguf_runtime` reads a JSON object from stdin, and writes arrays to stdout.
"""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from statprune.errors import VerificationError

_F32 = 0
"""ggml's number for it; the cache is f16 by default."""


def runtime_version() -> str | None:
    """Which llama.cpp is there: the version of llama-cpp-python; None where it is not installed."""
    return version("llama_cpp_python") if find_spec("llama_cpp") is not None else None


def run(path: Path, ids: Sequence[int], *, text: str = "", generate: int = 0) -> dict[str, Any]:
    """Open `path` with llama.cpp and compute.

    Args:
        path: a GGUF file.
        ids: tokens, given one by one, so that each reads the cache of those before.
        text: if any, split into tokens.
        generate: how many tokens to append to `ids`, each the likeliest.

    Returns:
        "logits", a row for each of `ids`; "tokens" of `text`; "generated" tokens.

    Raises:
        VerificationError: llama.cpp does not open the file, or does not survive it.
    """
    request = {"path": str(path), "ids": list(ids), "text": text, "generate": generate}
    command = [sys.executable, "-m", "statprune.export.gguf_runtime"]
    ended = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=False)
    if ended.returncode != 0:
        told = ended.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        # An abort ends with a backtrace.
        reason = next((line for line in reversed(told) if "GGML_ASSERT" in line or "Error" in line), told[-1])
        raise VerificationError(
            f"llama.cpp does not open what was written (exit code {ended.returncode}): "
            f"{reason}. Nothing was kept; please report this with the "
            f"model's config.json."
        )
    with np.load(io.BytesIO(ended.stdout), allow_pickle=False) as arrays:
        return dict(arrays)


def main() -> None:
    """Answer the request on stdin."""
    from llama_cpp import Llama  # noqa: PLC0415 - optional, and slow to import

    request = json.load(sys.stdin)
    ids = request["ids"]
    llama: Any = Llama(
        request["path"],
        n_ctx=len(ids) + request["generate"] + 1,
        n_threads=1,
        logits_all=True,
        flash_attn=False,
        type_k=_F32,
        type_v=_F32,
        verbose=False,
    )
    for token in ids:
        llama.eval([token])
    generated: list[int] = []
    logits = llama.scores[: len(ids)].copy()
    for _ in range(request["generate"]):
        generated.append(int(llama.scores[llama.n_tokens - 1].argmax()))
        llama.eval(generated[-1:])
    tokens = llama.tokenize(request["text"].encode(), add_bos=True, special=False) if request["text"] else []
    answer = io.BytesIO()
    np.savez(answer, logits=logits, tokens=np.array(tokens, int), generated=np.array(generated, int))
    sys.stdout.buffer.write(answer.getvalue())


if __name__ == "__main__":
    main()
