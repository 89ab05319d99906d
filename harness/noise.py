"""The noise floor: how uneven things were on this host while nothing was wrong; what a gap has to be compared with.

From the ops between the steady state and the first fault. Media: the time between two right packets of a held call.
Sends: how late the probes' own sends were. Metronome: how late a 10-ms tick of an idle process was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness.checkers.types import Evidence
from harness.clients.rtp.silence import noise_floor
from harness.history import Op
from harness.quantiles import nearest_rank


def floor(evidence: Evidence) -> dict[str, Any] | None:
    """Milliseconds; None when the steady state was never reached. What was not measured is null."""
    if evidence.steady_ns is None:
        return None
    first_ns = evidence.first_fault_ns if evidence.faults else evidence.end_ns
    quiet = [op for op in evidence.ops if evidence.steady_ns <= op.time_ns < first_ns]
    sends = {clock: _slips(quiet, clock) for clock in evidence.clocks}
    return {
        "media_gap_ms": _media(evidence, first_ns),
        "send_late_ms": {clock: quantiles(slips, 0.5, 0.99) for clock, slips in sends.items()},
        "metronome_late_ms": quantiles([op.value["max_late_ms"] for op in quiet if op.f == "metronome"], 0.5, 1.0),
    }


def quantiles(values: Iterable[float], low: float, high: float) -> dict[str, float] | None:
    """Two quantiles by nearest rank and the number of values; None without any."""
    ordered = sorted(values)
    if not ordered:
        return None
    return {f"p{100 * q:g}": round(nearest_rank(ordered, q), 3) for q in (low, high)} | {"n": len(ordered)}


def _slips(ops: Sequence[Op], clock: str) -> list[float]:
    return [float(op.value.get("slip_ms", 0.0)) for op in ops if op.f == clock and op.type == "invoke"]


def _media(evidence: Evidence, first_ns: int) -> dict[str, float] | None:
    """The time between right packets, over all legs of held calls."""
    found = noise_floor(evidence.ops, from_ns=evidence.steady_ns or 0, to_ns=first_ns)
    return None if found is None else {"p50": found.p50_ms, "p99.9": found.p999_ms, "max": found.max_ms, "n": found.n}
