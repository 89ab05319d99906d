"""The yardstick for senders on a grid: how late each packet was, by the capture alone."""

from __future__ import annotations

import pytest

from benchmarks.schedule import lateness_ms

PERIOD_NS = 2_000_000


def test_who_keeps_the_grid_is_not_late_also_when_its_period_is_a_little_off() -> None:
    assert max(lateness_ms([1_000 + n * PERIOD_NS for n in range(500)])) == pytest.approx(0, abs=1e-6)
    assert max(lateness_ms([n * (PERIOD_NS + 500) for n in range(500)])) == pytest.approx(0, abs=1e-6)


def test_one_late_packet_is_late_by_that_much_and_the_others_are_not() -> None:
    times = [n * PERIOD_NS for n in range(500)]
    times[250] += 1_500_000
    late = lateness_ms(times)
    assert late[250] == pytest.approx(1.5, abs=0.02)
    assert sorted(late)[-2] < 0.02


def test_of_a_sender_in_bursts_only_the_last_of_each_is_on_the_grid() -> None:
    late = lateness_ms([(n // 2 * 2) * PERIOD_NS for n in range(500)])
    assert late[0::2] == pytest.approx([2.0] * 250, abs=0.05)
    assert late[1::2] == pytest.approx([0.0] * 250, abs=0.05)
