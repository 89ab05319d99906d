"""The one clock of a run: CLOCK_MONOTONIC of the measuring host, in nanoseconds.

Everything measured carries it. Other clocks (log stamps, kernel receive times, alerts of the nodes) are wall-clock;
`WallOffset` is measured at the start and at the end of a run and turns one into the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

NS_PER_S = 1_000_000_000


def now_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds; comparable between all processes and containers of one host."""
    return time.monotonic_ns()


def ms(nanoseconds: int) -> float:
    """Nanoseconds as milliseconds, to the microsecond: the way that histories tell short times."""
    return round(nanoseconds / 1e6, 3)


@dataclass(frozen=True, kw_only=True)
class WallOffset:
    """`wall_ns - monotonic_ns` of one host at one moment, with the width of the reading as its error."""

    offset_ns: int
    error_ns: int

    @classmethod
    def measure(cls) -> WallOffset:
        """The tightest of 20 readings."""
        best: WallOffset | None = None
        for _ in range(20):
            before = time.monotonic_ns()
            wall = time.time_ns()
            after = time.monotonic_ns()
            reading = cls(offset_ns=wall - (before + after) // 2, error_ns=(after - before) // 2 + 1)
            if best is None or reading.error_ns < best.error_ns:
                best = reading
        assert best is not None
        return best

    def monotonic_ns(self, wall_s: float) -> int:
        """The monotonic time of a wall-clock stamp given in seconds since the epoch."""
        return round(wall_s * NS_PER_S) - self.offset_ns
