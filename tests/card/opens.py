"""Run in a process of its own: execute the Python of model cards in their folders, and tell what comes out.

    python opens.py FOLDER...

Blocks that import this package see it; all others run where it cannot be imported.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)


def told(model: Any) -> list[Any]:
    """Its class, and what it makes of the same tokens."""
    if hasattr(model, "encode"):
        made = torch.tensor(model.encode(["a man plays"], show_progress_bar=False))
        return [type(model[0].model).__name__, made.tolist()]
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        name = model.main_input_name
        inputs = {name: ids} if name == "input_ids" else {name: torch.ones(1, 3, 12, 12)}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = ids
        made = model(**inputs)[0]
    return [type(model).__name__, made.tolist()]


found = {}
for blind in (True, False):
    if blind:
        sys.modules["statprune"] = None  # type: ignore[assignment]
    else:
        del sys.modules["statprune"]
    for folder in sys.argv[1:]:
        os.chdir(folder)
        blocks = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)
        for number, text in enumerate(blocks):
            if ("import statprune" in text) is not blind:
                scope: dict[str, Any] = {}
                exec(text, scope)
                found[f"{folder} {number}"] = [*told(scope["model"]), "tokenizer" in scope]
sys.stdout.write(f"\n{json.dumps(found)}\n")
