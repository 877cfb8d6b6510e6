"""Run in a process of its own: commands with --json, while libraries and their processes print on stdout.

python noisy.py FOLDER, which holds llama and text.txt; new folders go beside them
"""

import os
import sys
import warnings
from pathlib import Path

import torch
from transformers.utils import logging

from statprune.cli.main import run
from statprune.errors import StatpruneWarning

torch.set_num_threads(1)
ROOT = Path(sys.argv[1])
MODEL, DATA = str(ROOT / "llama"), ["--data", str(ROOT / "text.txt"), "--seq-len", "32"]
MADE = str(ROOT / "made")
SMALL = ["--samples", "8", "--keep", "0.7", "--multiple", "4"]
COMMANDS = (
    ["inspect", MODEL],
    ["plan", MODEL, *DATA, *SMALL],
    ["compress", MODEL, *DATA, *SMALL, "--out", MADE],
    ["evaluate", MADE, *DATA, "--record", MADE],
    ["benchmark", MADE, "--seq-len", "8", "--repeats", "1", "--decode-tokens", "2"],
    ["export", MADE, "--to", "onnx", "--out", str(ROOT / "onnx")],
    ["push", MADE, "me/small"],
    ["evaluate", "--list-tasks"],
    ["evaluate", MODEL, "--task", "no-such-task"],
    ["compress", MODEL, "--keep", "none"],
)
quiet = logging.set_verbosity_error


def noisy() -> None:
    sys.stdout.write("noise\n")
    os.write(1, b"noise\n")
    os.system("echo noise")
    warnings.warn("noise", StatpruneWarning, stacklevel=1)
    quiet()


logging.set_verbosity_error = noisy
for words in COMMANDS:
    try:
        run([*words, "--json"])
    except SystemExit:
        sys.stdout.flush()
sys.stdout.write("after\n")
