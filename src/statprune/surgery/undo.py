"""Put blocks back as they were."""

from collections.abc import Callable

from torch import nn


def remember(blocks: nn.ModuleList) -> Callable[[], None]:
    """A function that gives every module below `blocks` the parameters and sizes it has now.

    Parameters are remembered, not copied: they stay in memory until the function is dropped.
    """
    before = [
        (
            module,
            dict(module._parameters),
            {name: value for name, value in vars(module).items() if isinstance(value, int)},
        )
        for module in blocks.modules()
    ]

    def restore() -> None:
        for module, parameters, sizes in before:
            module._parameters.update(parameters)
            vars(module).update(sizes)

    return restore
