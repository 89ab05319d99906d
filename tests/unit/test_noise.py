"""The noise floor counts the quiet time only."""

from __future__ import annotations

from dataclasses import replace

from harness.history import Op
from harness.noise import floor, quantiles
from tests.unit import synthetic
from tests.unit.synthetic import op


def second(seconds: float, gap_ms: int) -> Op:
    legs = {"c/caller": [50, 50, 0, gap_ms, 20.0, 0.1]}
    return op(seconds, "media_second", "ok", {"legs": legs, "pauses_ms": {"20": 9, str(gap_ms): 1}})


def test_only_what_lies_between_steady_state_and_fault_counts() -> None:
    ops = [*synthetic.clean_ops(), second(0.5, 500), second(1.5, 21), second(2.5, 24), second(7, 6000)]
    found = floor(synthetic.evidence_of(ops))
    assert found is not None
    assert found["media_gap_ms"] == {"p50": 21.0, "p99.9": 25.0, "max": 25.0, "n": 20}
    assert found["send_late_ms"]["options"]["n"] == 50  # until the fault was begun, 0.02 s before it landed
    assert found["metronome_late_ms"]["p100"] == 2.0


def test_a_run_that_never_was_steady_has_no_floor() -> None:
    assert floor(replace(synthetic.clean(), steady_ns=None)) is None


def test_quantiles_are_by_nearest_rank() -> None:
    assert quantiles([3.0, 1.0, 2.0], 0.5, 1.0) == {"p50": 2.0, "p100": 3.0, "n": 3}
    assert quantiles([], 0.5, 1.0) is None
