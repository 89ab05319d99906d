"""The open loop's grid."""

from __future__ import annotations

import pytest

from harness.clients.open_loop import Pace, Turn

MS = 1_000_000


@pytest.mark.parametrize(
    ("at_ms", "turns"),
    [
        ((0, 50, 100), [(0, 0, 0, False), (1, 0, 0, False), (2, 0, 0, False)]),
        ((3, 62, 101), [(0, 3, 0, False), (1, 12, 0, False), (2, 1, 0, False)]),
        ((0, 76, 100), [(0, 0, 0, False), (1, 26, 0, True), (2, 0, 0, False)]),
        ((0, 210, 250), [(0, 0, 0, False), (4, 160, 3, False), (5, 0, 0, False)]),
    ],
)
def test_lateness_never_moves_the_grid(at_ms: tuple[int, ...], turns: list[tuple[int, float, int, bool]]) -> None:
    pace = Pace(start_ns=7 * MS, period_s=0.05)
    taken = [pace.take(7 * MS + at * MS) for at in at_ms]
    assert taken == [Turn(n=n, slip_ms=slip, skipped=skipped, slipped=slipped) for n, slip, skipped, slipped in turns]


def test_an_invocation_names_only_what_is_unusual() -> None:
    assert Turn(n=1, slip_ms=0.2, skipped=0, slipped=False).value() == {"n": 1, "slip_ms": 0.2}
    assert Turn(n=5, slip_ms=90.0, skipped=1, slipped=True).value() == {
        "n": 5,
        "slip_ms": 90.0,
        "skipped": 1,
        "slipped": True,
    }
