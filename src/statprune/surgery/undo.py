"""Put a model back as it was."""

from collections.abc import Callable

from transformers import PreTrainedModel


def remember(model: PreTrainedModel) -> Callable[[], None]:
    """A function that gives `model` the class, configs, parameters and sizes of now.

    Parameters are remembered, not copied: they stay in memory until the function is dropped.
    """
    before = [
        (
            module,
            type(module),
            dict(module._parameters),
            {
                name: value
                for name, value in vars(module).items()
                if isinstance(value, int) or name == "config"
            },
        )
        for module in model.modules()
    ]

    model_class, config = type(model), dict(vars(model.config))

    def restore() -> None:
        model.__class__ = model_class
        vars(model.config).clear()
        vars(model.config).update(config)
        for module, kind, parameters, sizes in before:
            module.__class__ = kind
            module._parameters.update(parameters)
            vars(module).update(sizes)

    return restore
