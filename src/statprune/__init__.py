"""Makes trained transformers smaller and faster after training, without fine-tuning and without gradients.

Importing this package also teaches transformers' Auto classes to open folders whose blocks differ in width;
for every other model they do what they did before. It costs next to nothing: the names below are imported
when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from statprune.checkpoint.register import register_all

if TYPE_CHECKING:
    from statprune.anatomy.lookup import register
    from statprune.answers import Answers, answer
    from statprune.budget.plan import Plan
    from statprune.demo import Demonstration, demonstrate
    from statprune.efficiency import benchmark
    from statprune.efficiency_table import Benchmark
    from statprune.engine.group import together
    from statprune.errors import InputError, StatpruneError, StatpruneWarning
    from statprune.evaluation.scoring import TaskResult
    from statprune.evaluation.tasks import Task
    from statprune.gate import Gated, smallest
    from statprune.harnessed import harness
    from statprune.hub import Pushed, push
    from statprune.inspection import Inspection, inspect
    from statprune.measurement import Measurement
    from statprune.pipeline import Result, compress
    from statprune.planning import plan
    from statprune.quality import evaluate
    from statprune.reported.write import Reported, report
    from statprune.reports import Report, Reporter
    from statprune.version import __version__

__all__ = [
    "Answers",
    "Benchmark",
    "Demonstration",
    "Gated",
    "InputError",
    "Inspection",
    "Measurement",
    "Plan",
    "Pushed",
    "Report",
    "Reported",
    "Reporter",
    "Result",
    "StatpruneError",
    "StatpruneWarning",
    "Task",
    "TaskResult",
    "__version__",
    "answer",
    "benchmark",
    "compress",
    "demonstrate",
    "evaluate",
    "harness",
    "inspect",
    "plan",
    "push",
    "register",
    "report",
    "smallest",
    "together",
]

_HOMES = {
    "Answers": "answers",
    "Benchmark": "efficiency_table",
    "Demonstration": "demo",
    "Gated": "gate",
    "InputError": "errors",
    "Inspection": "inspection",
    "Measurement": "measurement",
    "Plan": "budget.plan",
    "Pushed": "hub",
    "Report": "reports",
    "Reported": "reported.write",
    "Reporter": "reports",
    "Result": "pipeline",
    "StatpruneError": "errors",
    "StatpruneWarning": "errors",
    "Task": "evaluation.tasks",
    "TaskResult": "evaluation.scoring",
    "__version__": "version",
    "answer": "answers",
    "benchmark": "efficiency",
    "compress": "pipeline",
    "demonstrate": "demo",
    "evaluate": "quality",
    "harness": "harnessed",
    "inspect": "inspection",
    "plan": "planning",
    "push": "hub",
    "register": "anatomy.lookup",
    "report": "reported.write",
    "smallest": "gate",
    "together": "engine.group",
}

register_all()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
