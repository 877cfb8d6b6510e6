"""Time left is right within a factor of 1.5 from a third of a run on, whatever the run is like."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, sin

import pytest

from benchmarks.speed.time_left import BOUND, Recording, Told
from statprune.engine.progress import NOTHING, Facts, Stage, Work
from statprune.time_left import Rates, TimeLeft, measured_rates

SECOND = Rates(products=1.0, algebra=1e30, elements=1e30, calls=1e30, transfer=1e30)
"""One product a second: expected seconds are products."""


@dataclass(frozen=True)
class Timed:
    """A stage: seconds expected of its blocks, seconds that those take which come."""

    name: str
    expected: Sequence[float]
    taken: Sequence[float]


def stage(name: str, expected: Sequence[float], slower: float = 1.0, noise: float = 0.1) -> Timed:
    """Blocks that take `slower` times what is expected, each a bit more or less."""
    taken = [slower * each * (1 + noise * sin(12.9 * n)) for n, each in enumerate(expected)]
    return Timed(name, expected, taken)


def run(prepare: float, *stages: Timed, settled: Sequence[Timed] | None = None) -> Recording:
    """The recording of such a run. What lies ahead is told after `prepare`; after the first stages anew.

    `settled` is what the plan says of the last stages, when all but them are done.
    """
    told, now = [Told(prepare, "prepare", 1, 1, Facts(ahead=ahead(stages)))], prepare
    last = stages[-len(settled) :] if settled else ()
    for each in stages[: len(stages) - len(last)]:
        now = walked(told, now, each)
    if settled:
        told.append(Told(now, "choose", 1, 1, Facts(ahead=ahead(settled))))
        for each in settled:
            now = walked(told, now, each)
    return Recording(told, now, SECOND)


def ahead(stages: Sequence[Timed]) -> list[Stage]:
    return [Stage(each.name, tuple(Work(products=seconds) for seconds in each.expected)) for each in stages]


def walked(told: list[Told], now: float, each: Timed) -> float:
    for done, seconds in enumerate(each.taken, start=1):
        now += seconds
        told.append(Told(now, each.name, done, len(each.taken), NOTHING))
    return now


EVEN = [10.0] * 12
RISING = [4.0 + n for n in range(12)]
EXPERTS = [40.0 if n % 3 == 2 else 8.0 for n in range(12)]
SAVE = stage("save", [3.0])
SHAPES = {
    "cheap survey": run(5, stage("survey", [1.0] * 12, 1.6), stage("refit", EVEN), SAVE),
    "expensive survey": run(5, stage("survey", RISING, 0.8), stage("refit", [5.0] * 12, 1.3), SAVE),
    "survey as long as the refit": run(5, stage("survey", RISING), stage("refit", EVEN, 1.4), SAVE),
    "machine half as fast": run(9, stage("survey", RISING, 2), stage("refit", EVEN, 2), SAVE),
    "machine twice as fast": run(4, stage("survey", RISING, 0.5), stage("refit", EVEN, 0.5), SAVE),
    "long beginning": run(60, stage("survey", RISING), stage("refit", EVEN, 1.2), SAVE),
    "stat": run(5, stage("measure", EVEN, 1.2), stage("prune", [6.0] * 12), SAVE),
    "stat, on another machine": run(5, stage("measure", EVEN, 3), stage("prune", [6.0] * 12, 3), SAVE),
    "stat, a plan given": run(5, stage("prune", EVEN, 2), SAVE),
    "experts in some blocks": run(5, stage("survey", EXPERTS, 1.3), stage("refit", EXPERTS, 1.1), SAVE),
    "experts, half as fast": run(5, stage("survey", EXPERTS, 2), stage("refit", EXPERTS, 2), SAVE),
    "search": run(
        5, stage("survey", RISING), stage("search", [9.0] * 7, 1.2), stage("refit", EVEN), SAVE
    ),
    "blocks kept whole": run(
        5,
        stage("survey", RISING),
        stage("refit", EVEN),
        SAVE,
        settled=[stage("refit", [1.0] * 4 + [10.0] * 8), SAVE],
    ),
    # Seconds of real blocks on two cores, beside what was expected of them before.
    "recorded refit": run(
        1.30,
        Timed(
            "survey",
            [0.27, 0.28, 0.3, 0.31, 0.33, 0.34, 0.35, 0.37],
            [0.33, 0.32, 0.34, 0.36, 0.37, 0.39, 0.4, 0.4],
        ),
        Timed("compare", [0.22], [0.2]),
        Timed("refit", [0.7] * 8, [0.83, 0.72, 0.64, 0.64, 0.67, 0.69, 0.71, 0.78]),
        Timed("save", [0.4], [0.37]),
    ),
    "recorded stat": run(
        1.91,
        Timed("measure", [0.6] * 8, [0.71, 0.7, 0.69, 0.65, 0.68, 0.67, 0.63, 0.7]),
        Timed("prune", [0.43] * 8, [0.35, 0.33, 0.32, 0.32, 0.31, 0.3, 0.32, 0.34]),
        Timed("save", [0.4], [0.34]),
    ),
    "recorded refit of many samples": run(
        5.1,
        Timed("survey", [0.8 + 0.1 * n for n in range(8)], [0.52, 0.52, 0.77, 1.06, 1.17, 1.39, 1.4, 1.38]),
        Timed("compare", [1.0], [1.96]),
        Timed("refit", [8.2] * 8, [11.82, 9.42, 11.9, 9.71, 8.24, 8.97, 10.4, 10.31]),
        Timed("save", [0.4], [1.03]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", list(SHAPES))
def test_within_the_bound_from_a_third_on(shape: str) -> None:
    recording = SHAPES[shape]
    ratios = {share: recording.ratio(share / 100) for share in range(34, 91)}
    wrong = {share: ratio for share, ratio in ratios.items() if isnan(ratio) or not 1 / BOUND < ratio < BOUND}
    assert wrong == {}


def test_nothing_is_said_before_anything_is_known() -> None:
    recording = SHAPES["stat"]
    assert recording.left(4.9) is None
    assert recording.left(5.0) is not None
    assert recording.left(recording.seconds) == 0


def test_a_search_that_ends_early_is_over_when_the_next_stage_goes_on() -> None:
    now = [0.0]
    estimate = TimeLeft(rates=lambda _: SECOND, clock=lambda: now[0])
    stages = [stage("search", [9.0] * 7), stage("refit", EVEN)]
    estimate("prepare", 1, 1, Facts(ahead=ahead(stages)))
    assert estimate.left() == pytest.approx(63 + 120)
    now[0] = 9.0
    estimate("search", 1, 7)
    now[0] = 19.0
    estimate("refit", 1, 12)
    assert estimate.left() == pytest.approx(110, rel=0.01)


def test_a_block_that_hangs_is_seen_before_it_ends() -> None:
    now = [0.0]
    estimate = TimeLeft(rates=lambda _: SECOND, clock=lambda: now[0])
    estimate("prepare", 1, 1, Facts(ahead=ahead([stage("refit", EVEN)])))
    now[0] = 40.0
    assert estimate.left() == pytest.approx(11 * 40)


def test_blocks_of_an_earlier_run_are_no_measure() -> None:
    now = [0.0]
    estimate = TimeLeft(rates=lambda _: SECOND, clock=lambda: now[0])
    estimate("prepare", 1, 1, Facts(ahead=ahead([stage("refit", EVEN)])))
    for done in (1, 2, 3):
        now[0] += 0.1
        estimate("refit", done, 12, Facts(recalled=True))
    assert estimate.left() == pytest.approx(90)


def test_without_an_outlook_a_stage_is_measured_by_itself() -> None:
    now = [0.0]
    estimate = TimeLeft(clock=lambda: now[0])
    now[0] = 4.0
    estimate("evaluate", 2, 10)
    assert estimate.left() == pytest.approx(16)
    assert estimate.state() == (4.0, pytest.approx(16), ("evaluate", 2, 10))
    now[0] = 6.0
    assert estimate.left() == pytest.approx(14)


def test_rates_are_measured() -> None:
    found = measured_rates()
    assert all(value > 0 for value in vars(found).values())
    assert found != Rates()
