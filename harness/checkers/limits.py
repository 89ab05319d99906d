"""What a checker may be asked for; `ValueError` says what is wrong with it."""

from __future__ import annotations


def check_min_ratio(min_ratio: float) -> None:
    """A share of what is counted."""
    if not 0 < min_ratio <= 1:
        raise ValueError(f"min_ratio is above 0 and at most 1, not {min_ratio}")


def check_limit_s(limit_s: float) -> None:
    """A time, in seconds."""
    if limit_s <= 0:
        raise ValueError(f"a limit is above 0 s, not {limit_s}")
