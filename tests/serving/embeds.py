"""Run in a process of its own: what sentence-transformers makes of folders, as JSON.

    python embeds.py blocked|imported FOLDER...

`blocked`: without this package, first trusting the code in the folder, then not.
"""

import json
import sys

if sys.argv[1] == "imported":
    import statprune  # noqa: F401
else:
    sys.modules["statprune"] = None  # type: ignore[assignment]

import torch
from sentence_transformers import SentenceTransformer

torch.set_num_threads(1)
found = {}
for trusting in (True, False) if sys.argv[1] == "blocked" else (False,):
    for folder in sys.argv[2:]:
        try:
            model = SentenceTransformer(folder, device="cpu", trust_remote_code=trusting)
            made = model.encode(["a man plays", "rates rose again and fell"], show_progress_bar=False)
            found[f"{trusting} {folder}"] = [type(model[0].model).__name__, made.tolist()]
        except Exception as error:
            found[f"{trusting} {folder}"] = [type(error).__name__, []]
sys.stdout.write(f"\n{json.dumps(found)}\n")
