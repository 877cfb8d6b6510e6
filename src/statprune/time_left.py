"""How long a run will still take, from the work that lies ahead and the time that blocks have taken.

The work of each block of each stage is counted beforehand (engine/outlook.py), and rates turn it into
seconds. Then blocks are timed. A stage that has begun goes on as its own blocks have gone; those that have
not are corrected by a part of what the others were wrong by: such an error is the machine's, which the next
stage shares, or the count's, which it does not. The larger it is, the more of it is the machine's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from threading import RLock
from time import perf_counter

import torch

from statprune.engine.progress import NOTHING, Facts, Work

OWN = 0.25
"""How far a stage's count is off, in the logarithm, by itself; a larger deviation is the machine's."""

FAMILIAR = 0.3
"""Blocks that a stage's own times must outweigh before they count more than what was expected."""

SURE = 0.5
"""Seconds of measured work that the correction of the stages to come must outweigh."""


@dataclass(frozen=True)
class Rates:
    """Work done in a second: multiply-adds, numbers, calls and bytes, as in `Work`."""

    products: float = 45e9
    algebra: float = 10e9
    elements: float = 1.1e9
    calls: float = 1e5
    transfer: float = 4e8

    def seconds(self, work: Work) -> float:
        """What `work` takes."""
        return (
            work.products / self.products
            + work.algebra / self.algebra
            + work.elements / self.elements
            + work.calls / self.calls
            + work.transfer / self.transfer
        )


def measured_rates(device: str | None = None) -> Rates:
    """The rates of `device`, from the time of four small operations; some twenty milliseconds.

    The default rates belong to a processor on which these ran at 18 G, 9 G and 2.4 G a second, and
    250 thousand calls.
    """
    place, known = torch.device(device or "cpu"), Rates()
    wide = torch.ones(1024, 512, device=place)
    tall = torch.ones(512, 512, device=place, dtype=torch.float64)
    many, few = torch.ones(2**20, device=place), torch.ones(8, device=place)
    return Rates(
        products=known.products / 18e9 * 1024 * 512**2 / _fastest(place, lambda: wide @ wide[:512]),
        algebra=known.algebra / 9e9 * 512**3 / _fastest(place, lambda: tall @ tall),
        elements=known.elements / 2.4e9 * 2**20 / _fastest(place, lambda: torch.nn.functional.silu(many)),
        calls=known.calls / 2.5e5 * 100 / _fastest(place, lambda: [few + few for _ in range(100)]),
    )


def _fastest(place: torch.device, run: Callable[[], object]) -> float:
    spent = []
    for _ in range(4):
        started = perf_counter()
        run()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        spent.append(perf_counter() - started)
    return max(min(spent), 1e-7)


@dataclass
class Course:
    """One stage: what its blocks were expected to take, and what those done have taken, in seconds."""

    name: str
    expected: list[float]
    done: int = 0
    spent: float = 0.0
    own: float = 0.0
    """What the blocks that were timed were expected to take."""
    counted: bool = True
    """Whether its work was counted; else every block is expected to take as long as the others."""

    @property
    def ended(self) -> bool:
        """Whether all blocks are done."""
        return self.done >= len(self.expected)

    @property
    def to_come(self) -> float:
        """What the blocks not done were expected to take."""
        return sum(self.expected[self.done :])


class TimeLeft:
    """The stages of a run, and the seconds until its end; takes what `progress` tells.

    Other threads may ask meanwhile.

    Args:
        rates: finds the rates of a device, once the stages ahead are known.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        rates: Callable[[str | None], Rates] = measured_rates,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._find_rates, self._clock, self._lock = rates, clock, RLock()
        self._rates: Rates | None = None
        self._courses: list[Course] = []
        self._known = False
        self._device: str | None = None
        self._began = self._since = clock()

    def __call__(self, stage: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
        """Note that `done` of the `blocks` of `stage` lie behind."""
        with self._lock:
            self._take(stage, done, blocks, facts)

    def _take(self, stage: str, done: int, blocks: int, facts: Facts) -> None:
        now = self._clock()
        self._note(self._course(stage, blocks), done, None if facts.recalled else now - self._since)
        if facts.ahead is not None:
            self._device = facts.device or self._device
            if facts.ahead and self._rates is None:
                self._rates = self._find_rates(self._device)
            rates = self._rates or Rates()
            begun = [each for each in self._courses if each.ended or each.done]
            ahead = [Course(each.name, [rates.seconds(work) for work in each.work]) for each in facts.ahead]
            self._courses, self._known = [*begun, *ahead], True
        self._since = now

    @property
    def seconds(self) -> float:
        """Since this object was made."""
        return self._clock() - self._began

    def state(self) -> tuple[float, float | None, tuple[str, int, int] | None]:
        """Seconds so far, seconds left, and (stage, blocks done, blocks) of the stage on its way, if any."""
        with self._lock:
            current = self._current
            now = None if current is None else (current.name, current.done, len(current.expected))
            return self.seconds, self.left(), now

    @property
    def _current(self) -> Course | None:
        """The stage that is on its way: the first that has not ended."""
        return next((each for each in self._courses if not each.ended), None)

    def left(self) -> float | None:
        """Seconds until the end; None as long as nothing is known about what lies ahead."""
        with self._lock:
            return self._left()

    def _left(self) -> float | None:
        waited, current = self._clock() - self._since, self._current
        if not self._known and (current is None or not current.done):
            return None
        if current is None:
            return 0.0
        factor = self._factor(current)
        block = current.expected[current.done]
        # A block that takes longer than expected says something about those behind it.
        overdue = max(factor, waited / block) if block > 0 else factor
        rest = overdue * current.to_come - min(waited, overdue * block)
        later = [each for each in self._courses if not each.ended and each is not current]
        return rest + self._shared() * sum(each.to_come for each in later)

    def _course(self, stage: str, blocks: int) -> Course:
        """The stage's course; those before it have ended, whatever they had planned."""
        found = next((each for each in self._courses if each.name == stage and not each.ended), None)
        if found is None or len(found.expected) != blocks:
            known = [] if found is None else found.expected
            mean = sum(known) / len(known) if known else 1.0
            course = Course(stage, [mean] * blocks, counted=found is not None and found.counted)
            position = len(self._courses) if found is None else self._courses.index(found)
            if found is None and self._current is not None:
                position = self._courses.index(self._current)
            self._courses[position : position + (found is not None)] = [course]
            found = course
        for earlier in self._courses[: self._courses.index(found)]:
            earlier.done = len(earlier.expected)
        return found

    def _note(self, course: Course, done: int, spent: float | None) -> None:
        if spent is not None:
            course.own += sum(course.expected[course.done : done])
            course.spent += spent
        course.done = done

    def _factor(self, course: Course) -> float:
        """How much longer than expected the stage's blocks take."""
        familiar = FAMILIAR * sum(course.expected) / len(course.expected) if course.counted else 0.0
        if course.own + familiar <= 0:
            return 1.0
        return (course.spent + familiar * self._shared(but=course)) / (course.own + familiar)

    def _shared(self, but: Course | None = None) -> float:
        """How much longer than expected stages that have not begun will take."""
        timed = [each for each in self._courses if each.counted and each is not but]
        spent, own = sum(each.spent for each in timed), sum(each.own for each in timed)
        found = log((spent + SURE) / (own + SURE))
        return exp(found**3 / (found**2 + OWN**2))
