"""Where the weights of blocks are while nobody works on them, and what an earlier run has made of them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class State:
    """What is known of one block after one stage of a run: tensors by name, and facts that JSON can hold."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Shelf(Protocol):
    """Lends blocks, and keeps what was made of them."""

    @property
    def lends(self) -> bool:
        """Whether blocks have weights only while they are taken."""
        ...

    def taken(self, index: int) -> AbstractContextManager[None]:
        """Block `index` with its weights at hand, for a while."""
        ...

    def earlier(self, stage: str, index: int) -> State | None:
        """What a run before this one has noted of block `index`; None if it did not get so far."""
        ...

    def note(self, stage: str, index: int, state: State) -> None:
        """Keep `state`."""
        ...


class InMemory:
    """All blocks are at hand all the time, and nothing is kept."""

    lends = False

    def taken(self, index: int) -> AbstractContextManager[None]:
        """As it is."""
        return nullcontext()

    def earlier(self, stage: str, index: int) -> State | None:
        """Nothing."""
        return None

    def note(self, stage: str, index: int, state: State) -> None:
        """Forget it."""


IN_MEMORY = InMemory()
