"""Every error and warning of this package; each message says what is wrong, where, and what to do."""


class StatpruneError(Exception):
    """Our own failure: the command line exits with code 1."""

    exit_code = 1


class InputError(StatpruneError):
    """What was given cannot be used: the command line exits with code 2."""

    exit_code = 2


class ModelError(InputError):
    """The model cannot be opened, is not whole, or is of a kind that cannot be pruned."""


class UnknownArchitectureError(ModelError):
    """No entry describes this model; the message holds a draft entry."""


class DataError(InputError):
    """The calibration or evaluation data cannot be read, or there is too little of it."""


class BudgetError(InputError):
    """The budget cannot be met, or contradicts another option."""


class PlanError(InputError):
    """The plan is empty, malformed, or does not fit the model."""


class OutputError(InputError):
    """The output folder exists or cannot be written."""


class NonFiniteError(InputError):
    """A NaN or an infinity where a number is needed."""


class ShortOfMemoryError(InputError):
    """Memory is short for the least that can be done at once."""

    def __init__(self, told: str) -> None:
        super().__init__(
            f"{told} Give a shorter --seq-len, a smaller --batch, --offload, or another --device."
        )


class VerificationError(StatpruneError):
    """The saved folder does not reproduce the model in memory."""


class NumericalError(StatpruneError):
    """A factorisation or solve failed even after its bounded rescue."""


class HubError(StatpruneError):
    """The Hub cannot be reached, or an upload failed."""


class RankLostError(StatpruneError):
    """Another process of the run has ended, or gives no sign of life."""


class StatpruneWarning(UserWarning):
    """Something the user should know, that does not stop the run."""


class NumericalWarning(StatpruneWarning):
    """A numerical rescue was applied; the message says which and how much."""


def short_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had, on the host or on a device."""
    names = {kind.__name__ for kind in type(error).__mro__}
    host = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return host or bool(names & {"MemoryError", "OutOfMemoryError"})
