"""Blocks that hand their input on instead of computing, while the model's own forward runs around them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from statprune.anatomy.lookup import Anatomy, Run

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]
"""The other arguments with which the model calls its blocks, block by block."""


@dataclass
class Handing:
    """Blocks of one stack that hand their input on, or return `instead`; what they were called with."""

    run: Run
    instead: Tensor | None = None
    first: list[Tensor] = field(default_factory=list)
    calls: Calls = field(default_factory=list)
    extras: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.extras = (None,) * self.run.stack.extras

    @property
    def runs_first(self) -> bool:
        """Whether the first block runs, for what it hands on besides."""
        return self.run.stack.carried and self.instead is None

    def forward_of(self, block: nn.Module) -> Callable[..., Any]:
        """What stands in for the forward of `block`."""
        own = block.forward
        runs = self.runs_first and block is self.run.blocks[0]

        def hand_on(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self.first:
                self.first.append(hidden)
            self.calls.append((args, kwargs))
            returned = hidden if self.instead is None else self.instead
            if runs:
                self.extras = own(hidden, *args, **kwargs)[1:]
            return (returned, *self.extras) if self.extras else returned

        return hand_on


@contextmanager
def handing_on(anatomy: Anatomy, handing: Sequence[Handing]) -> Iterator[None]:
    """The blocks of every stack as `handing` says, for a while."""
    with ExitStack() as stack:
        for each in handing:
            if each.runs_first:
                stack.enter_context(anatomy.shelf.taken(each.run.start))
            for block in each.run.blocks:
                own = block.__dict__.get("forward")  # a hook that someone else has put there
                block.forward = each.forward_of(block)
                if own is None:
                    stack.callback(block.__dict__.pop, "forward")
                else:
                    stack.callback(setattr, block, "forward", own)
        yield
