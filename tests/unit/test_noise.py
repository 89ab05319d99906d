"""The noise floor counts the quiet time only."""

from __future__ import annotations

from dataclasses import replace

from harness.history import Op
from harness.noise import floor, quantiles
from tests.unit import synthetic
from tests.unit.synthetic import op


def second(seconds: float, gap_ms: float, *, right: int = 50) -> Op:
    return op(seconds, "media_second", "ok", {"legs": {"c/caller": [50, right, 0, gap_ms, 20.0, 0.1]}})


def test_only_what_lies_between_steady_state_and_fault_counts() -> None:
    ops = [*synthetic.clean_ops(), second(-1, 500.0), second(1, 21.0), second(2, 24.0), second(7, 6000.0)]
    found = floor(synthetic.evidence_of(ops))
    assert found is not None
    assert found["media_gap_ms"] == {"p50": 21.0, "p99.9": 24.0, "n": 2}
    assert found["send_late_ms"]["options"]["n"] == 51
    assert found["metronome_late_ms"]["p100"] == 2.0


def test_a_leg_that_heard_nothing_has_no_gap() -> None:
    found = floor(synthetic.evidence_of([*synthetic.clean_ops(), second(1, 0.0, right=0)]))
    assert found is not None and found["media_gap_ms"] is None


def test_a_run_that_never_was_steady_has_no_floor() -> None:
    assert floor(replace(synthetic.clean(), steady_ns=None)) is None


def test_quantiles_are_by_nearest_rank() -> None:
    assert quantiles([3.0, 1.0, 2.0], 0.5, 1.0) == {"p50": 2.0, "p100": 3.0, "n": 3}
    assert quantiles([], 0.5, 1.0) is None
