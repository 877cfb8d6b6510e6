"""Numbers that a block reads at run time, made to follow its widths."""

from typing import Any

from torch import nn


class OwnConfig:
    """What blocks share, but for one block's own widths; all else is read from it as it is then."""

    def __init__(self, shared: Any) -> None:
        self.shared = shared

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "shared":  # while it is copied, it is empty
            raise AttributeError(name)
        return getattr(self.shared, name)


def follow(block: nn.Module, path: str, value: int) -> None:
    """Set the attribute at `path`, in a config of the block's own where it is one of a config."""
    owner, _, name = path.rpartition(".")
    holder, _, last = owner.rpartition(".")
    if last == "config":
        module: Any = block.get_submodule(holder)
        if not isinstance(module.config, OwnConfig):
            module.config = OwnConfig(module.config)
        setattr(module.config, name, value)
    else:
        setattr(block.get_submodule(owner), name, value)
