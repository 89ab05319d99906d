"""Quantiles by nearest rank: always a value that was measured, never one in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def rank(part: float, n: int) -> int:
    """Which of `n` values in ascending order, counted from 1, is the quantile `part` (0-1); at least the first."""
    return max(1, math.ceil(part * n - 1e-9))  # 0.07 * 100 is a little more than 7


def nearest_rank(ordered: Sequence[T], part: float) -> T:
    """The quantile of values in ascending order; `IndexError` without any."""
    return ordered[rank(part, len(ordered)) - 1]
