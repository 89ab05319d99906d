"""The noise floor: how uneven things were on this host while nothing was wrong; what a gap has to be compared with.

From the ops between the steady state and the first fault. Media: the longest gap between right packets per leg and
second; its p99.9 is never below that of all gaps. Sends: how late the probes' own sends were. Metronome: how late a
10-ms tick of an idle process was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from harness.checkers.types import Evidence
from harness.history import Op


def floor(evidence: Evidence) -> dict[str, Any] | None:
    """Milliseconds; None when the steady state was never reached. What was not measured is null."""
    if evidence.steady_ns is None:
        return None
    first_ns = evidence.first_fault_ns if evidence.faults else evidence.end_ns
    quiet = [op for op in evidence.ops if evidence.steady_ns <= op.time_ns < first_ns]
    sends = {clock: _slips(quiet, clock) for clock in evidence.clocks}
    return {
        "media_gap_ms": quantiles(_gaps(quiet), 0.5, 0.999),
        "send_late_ms": {clock: quantiles(slips, 0.5, 0.99) for clock, slips in sends.items()},
        "metronome_late_ms": quantiles([op.value["max_late_ms"] for op in quiet if op.f == "metronome"], 0.5, 1.0),
    }


def quantiles(values: Iterable[float], low: float, high: float) -> dict[str, float] | None:
    """Two quantiles by nearest rank and the number of values; None without any."""
    ordered = sorted(values)
    if not ordered:
        return None
    return {f"p{100 * q:g}": round(ordered[max(0, math.ceil(q * len(ordered)) - 1)], 3) for q in (low, high)} | {
        "n": len(ordered)
    }


def _slips(ops: Sequence[Op], clock: str) -> list[float]:
    return [float(op.value.get("slip_ms", 0.0)) for op in ops if op.f == clock and op.type == "invoke"]


def _gaps(ops: Sequence[Op]) -> list[float]:
    """The fourth column of `media_second`, of legs that heard the right audio in that second."""
    rows = [row for op in ops if op.f == "media_second" for row in op.value["legs"].values()]
    return [float(row[3]) for row in rows if row[1]]
