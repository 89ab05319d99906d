"""The metronome tells how late it was, on a clock of its own."""

from __future__ import annotations

import pytest

from harness.metronome import tick_for_a_second


class Time:
    """A clock whose sleeps take as long as asked for, and `stall_ns` longer once."""

    def __init__(self, *, stall_at: int | None = None, stall_ns: int = 0) -> None:
        self.now = 5_000_000_000
        self.sleeps = 0
        self.stall_at, self.stall_ns = stall_at, stall_ns

    def time_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.now += round(seconds * 1e9) + (self.stall_ns if self.sleeps == self.stall_at else 0)


def test_a_host_with_time_to_spare_is_never_late() -> None:
    time = Time()
    assert tick_for_a_second(time_ns=time.time_ns, sleep=time.sleep) == 0
    assert (time.sleeps, time.now) == (100, 6_000_000_000)


@pytest.mark.parametrize("stall_at", [1, 50, 100])
def test_a_stall_is_found_wherever_it_strikes(stall_at: int) -> None:
    time = Time(stall_at=stall_at, stall_ns=300_000_000)
    assert tick_for_a_second(time_ns=time.time_ns, sleep=time.sleep) == 300_000_000
    assert time.sleeps == 100
