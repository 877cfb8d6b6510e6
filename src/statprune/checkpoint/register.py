"""Teach transformers' auto classes to open per-layer folders, at no cost to anything else.

Transformers picks a model class from the type of the config alone. It can hold several classes for one type
and pick among them by `architectures`, but then fails on a config that names none, such as a new one. So the
choice itself is wrapped, not the tables it reads: those stay as they are, with all that others put there.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_AUTO_FACTORY = "transformers.models.auto.auto_factory"


def register_all() -> None:
    """Let `AutoModel...` open what was saved per layer; everything else gets the class it got before.

    Importing the auto classes takes half a second, so where nobody has yet, this waits until someone does.
    """
    loaded = sys.modules.get(_AUTO_FACTORY)
    if loaded is not None:
        _wrap_choice(loaded)
    elif not any(isinstance(finder, _WaitForAutoClasses) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WaitForAutoClasses())


class _WaitForAutoClasses:
    """An import hook for one module, gone after one use."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _AUTO_FACTORY:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_wrap(module: ModuleType) -> None:
                execute(module)
                _wrap_choice(module)

            loader.exec_module = execute_and_wrap
        return spec


def _wrap_choice(auto_factory: Any) -> None:
    stock_choice = auto_factory._get_model_class
    if getattr(stock_choice, "knows_per_layer", False):
        return

    def choose(config: Any, model_mapping: Any) -> Any:
        names = getattr(config, "architectures", None) or ()
        if not any(name.startswith("Statprune") for name in names):
            return stock_choice(config, model_mapping)
        from statprune.checkpoint.classes import PREFIX, class_named  # noqa: PLC0415 - see register_all

        stock_name = model_mapping._model_mapping.get(config.model_type)
        return class_named(f"{PREFIX}{stock_name}") or stock_choice(config, model_mapping)

    choose.knows_per_layer = True  # type: ignore[attr-defined]
    auto_factory._get_model_class = choose
