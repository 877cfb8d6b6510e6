"""Bisection on a grid of shares finds where passing begins, in few trials, wherever it begins."""

import pytest

from statprune.budget.shares import Bracket, grid


def tries(shares: list[float], begins: int, guesses: list[float]) -> tuple[Bracket, list[int]]:
    """Search where positions from `begins` on pass; the first trials go where guesses say."""
    bracket, tried = Bracket.around(shares), []
    while bracket.open:
        position = bracket.next(guesses[len(tried)] if len(tried) < len(guesses) else None)
        tried.append(position)
        bracket.note(position, passes=position >= begins)
    return bracket, tried


@pytest.mark.parametrize("guesses", [[], [0.02], [0.98], [0.5, 0.02], [0.1, 0.9], [0.7, 0.7]])
def test_the_first_that_passes_is_found_within_eight_trials(guesses: list[float]) -> None:
    shares = grid(0.0)
    assert len(shares) == 49
    for begins in range(len(shares) + 1):
        bracket, tried = tries(shares, begins, guesses)
        assert (bracket.passed, bracket.failed) == (begins, begins - 1)
        assert len(tried) == len(set(tried)) <= 8
        if not guesses:
            assert len(tried) <= Bracket.around(shares).most() == 6


def test_a_good_guess_saves_trials() -> None:
    shares = grid(0.0)
    _, tried = tries(shares, 30, [shares[30], shares[29]])
    assert tried == [30, 29]


@pytest.mark.parametrize(
    ("least", "first"), [(0.0, 0.02), (0.02, 0.02), (0.0201, 0.04), (0.5, 0.5), (0.97, 0.98)]
)
def test_the_grid_begins_at_what_can_be_reached(least: float, first: float) -> None:
    shares = grid(least)
    assert (shares[0], shares[-1]) == (first, 0.98)
    assert grid(0.99) == []
