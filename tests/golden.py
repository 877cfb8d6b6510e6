"""What a small compression of the demonstration's model makes, for tests/golden.json.

Where a change of the method is meant, renew the file, and say in the commit what changed and why:

    python -m tests.golden > tests/golden.json
"""

import json
import sys
from typing import Any

import statprune
from statprune.calibration.records import read
from statprune.demo import CALIBRATION, EVALUATION, MODEL
from statprune.evaluation.perplexity import perplexity

METHODS = ("refit", "stat")
OPTIONS: dict[str, Any] = {"keep": 0.7, "samples": 16, "seq_len": 64, "seed": 0, "device": "cpu"}


def golden(method: str) -> dict[str, Any]:
    """Choices and numbers of a compression of a model of 260,000 parameters on 1,024 tokens."""
    made = statprune.compress(MODEL, data=str(CALIBRATION), method=method, **OPTIONS)
    assert made.model is not None
    text = read(str(EVALUATION))
    found = perplexity(made.model, made.tokenizer, text, seq_len=64, max_tokens=64 * 64)
    return {
        "widths": dict(made.plan.widths),
        "kept": {site.site: site.kept for site in made.trace.sites},
        "errors": {site.site: site.relative_error for site in made.trace.sites},
        "numbers": {"perplexity": found.perplexity}
        | ({} if made.trace.divergence is None else {"divergence": made.trace.divergence}),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps({method: golden(method) for method in METHODS}, indent=1) + "\n")
