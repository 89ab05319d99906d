"""Nearest rank: the smallest value that at least such a share of all values does not exceed."""

from __future__ import annotations

import pytest

from harness.quantiles import nearest_rank, rank


@pytest.mark.parametrize(
    ("part", "n", "expected"),
    [(0.0, 5, 1), (0.5, 1, 1), (0.5, 4, 2), (0.5, 5, 3), (0.95, 20, 19), (0.999, 1001, 1000), (1.0, 5, 5)],
)
def test_the_rank_of_a_quantile(part: float, n: int, expected: int) -> None:
    assert rank(part, n) == expected


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_rank_that_is_whole_is_not_raised_by_how_floats_are_kept(percent: int) -> None:
    assert nearest_rank(range(1, 101), percent / 100) == percent


def test_without_a_value_there_is_no_quantile() -> None:
    with pytest.raises(IndexError):
        nearest_rank([], 0.5)
