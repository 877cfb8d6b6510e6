"""Makes trained transformers smaller and faster after training, without fine-tuning and without gradients.

Importing this package also teaches transformers' Auto classes to open folders whose blocks differ in width;
for every other model they do what they did before.
"""

from statprune.budget.plan import Plan
from statprune.checkpoint.register import register_all
from statprune.errors import InputError, StatpruneError, StatpruneWarning
from statprune.inspection import Inspection, inspect
from statprune.pipeline import Result, compress
from statprune.quality import evaluate
from statprune.version import __version__

__all__ = [
    "InputError",
    "Inspection",
    "Plan",
    "Result",
    "StatpruneError",
    "StatpruneWarning",
    "__version__",
    "compress",
    "evaluate",
    "inspect",
]

register_all()
