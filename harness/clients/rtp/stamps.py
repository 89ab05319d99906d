"""The kernel's receive times (wall clock, SO_TIMESTAMPNS) on CLOCK_MONOTONIC."""

from __future__ import annotations

import time
from collections.abc import Callable
from struct import Struct

from harness.clients.sip.transport import SO_TIMESTAMPNS
from harness.clock import NS_PER_S, now_ns

TIMESPEC = Struct("@qq")
CONTROL_BYTES = 64

_TIGHT_NS = 20_000
"""A reading of both clocks within this is good; the host was busy between them otherwise."""

_STEP_NS = 5_000_000
"""A wall clock that is further off than this, even by a wide reading, was set."""


class Stamps:
    """Call `refresh` once per batch of packets: the offset is that of the moment, however busy the host."""

    def __init__(self, *, monotonic_ns: Callable[[], int] = now_ns, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self.offset_ns = wall_ns() - monotonic_ns()
        self.refresh()

    def refresh(self) -> None:
        """Read both clocks, three times at most; keep the last offset when no reading was tight and none disagrees."""
        best, width = self.offset_ns, 1 << 62
        for _ in range(3):
            before = self._monotonic_ns()
            wall = self._wall_ns()
            after = self._monotonic_ns()
            if after - before < width:
                best, width = wall - (before + after) // 2, after - before
            if width <= _TIGHT_NS:
                break
        if width <= _TIGHT_NS or abs(best - self.offset_ns) > width + _STEP_NS:
            self.offset_ns = best

    def received_ns(self, control: list[tuple[int, int, bytes]]) -> int:
        """When the kernel received it; now, where it gave no stamp or one that can't be true."""
        if control and control[0][1] == SO_TIMESTAMPNS:
            seconds, nanoseconds = TIMESPEC.unpack_from(control[0][2])
            stamp_ns: int = seconds * NS_PER_S + nanoseconds - self.offset_ns
            if abs(self._monotonic_ns() - stamp_ns) < 60 * NS_PER_S:
                return stamp_ns
        return self._monotonic_ns()

    def wall_of(self, monotonic_ns: int) -> int:
        return monotonic_ns + self.offset_ns
