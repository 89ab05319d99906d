"""Was the host able to measure? A busy host makes a run unknown, neither fast nor slow.

Two witnesses decide: a metronome that should tick every 10 ms and says how late it was, and corosync's own complaint
that it was not scheduled. The kernel's pressure figure (PSI) is told beside them: a failover is work, and on a small
host some of it always waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness.checkers.types import Evidence
from harness.history import Op
from harness.results import CheckResult


@dataclass(frozen=True, kw_only=True)
class HostPressure:
    """Unknown when a tick came later than `max_late_ms` (half of SIP's T1 by default), or when more than `late_ratio`
    of the seconds had a tick later than `late_ms`, when the metronome was silent for more than `max_silence_s`, when a
    corosync was not scheduled on a node that no fault held, or when a node's logs could not be had."""

    name: str = "host_pressure"
    max_late_ms: float = 250.0
    late_ms: float = 50.0
    late_ratio: float = 0.05
    max_silence_s: float = 3.0

    def check(self, evidence: Evidence) -> CheckResult:
        start_ns = evidence.steady_ns or 0
        seconds = [op for op in evidence.of("metronome") if start_ns <= op.time_ns <= evidence.end_ns]
        if not seconds:
            return CheckResult(name=self.name, verdict="unknown", why="no metronome ran beside the probes")
        worst = max(float(op.value["max_late_ms"]) for op in seconds)
        late = [op for op in seconds if float(op.value["max_late_ms"]) > self.late_ms]
        psi = max(float(op.value.get("psi_cpu_some_ratio") or 0.0) for op in seconds)
        silence_s = _silence_s(seconds, start_ns=evidence.steady_ns or seconds[0].time_ns, end_ns=evidence.end_ns)
        complaints = complaints_of(evidence)
        metrics = {
            "max_late_ms": worst,
            "late_seconds_ratio": round(len(late) / len(seconds), 4),
            "psi_cpu_some_max_ratio": psi,
            "corosync_not_scheduled": len(complaints),
        }
        doubts = []
        if worst > self.max_late_ms:
            doubts.append(f"a tick came {worst:.0f} ms late (bound {self.max_late_ms:g})")
        if len(late) / len(seconds) > self.late_ratio:
            doubts.append(f"ticks were over {self.late_ms:g} ms late in {len(late)} of {len(seconds)} seconds")
        if silence_s > self.max_silence_s:
            doubts.append(f"the metronome was silent for {silence_s:.1f} s")
        if complaints:
            first = complaints[0]
            doubts.append(f"corosync on {first['reporter']} was not scheduled for {first['exec_ms']} ms")
        if evidence.unread:
            doubts.append(f"nobody knows what corosync said: {evidence.unread[0]}")
        if doubts:
            why = f"the host was too busy to measure: {'; '.join(doubts)}"
            return CheckResult(
                name=self.name, verdict="unknown", why=why, metrics=metrics, evidence=tuple(o.index for o in late[:20])
            )
        return CheckResult(
            name=self.name, verdict="pass", why=f"ticks at most {worst:.0f} ms late, PSI cpu {psi:.0%}", metrics=metrics
        )


def complaints_of(evidence: Evidence) -> list[dict[str, Any]]:
    """Corosync's "not scheduled" between steady state and end, but for nodes that a fault held at the time."""
    held = [(f.target, f.landed_ns, f.healed_ns or evidence.end_ns) for f in evidence.faults if f.landed_ns is not None]
    return [
        row
        for row in evidence.alerts
        if row["kind"] == "not_scheduled"
        and (evidence.steady_ns or 0) <= row["time_ns"] <= evidence.end_ns
        and not any(row["reporter"] == target and start <= row["time_ns"] <= end for target, start, end in held)
    ]


def _silence_s(seconds: Sequence[Op], *, start_ns: int, end_ns: int) -> float:
    """The longest time without a word from the metronome; it speaks every second."""
    stamps = [start_ns, *(op.time_ns for op in seconds), end_ns]
    return max(b - a for a, b in pairwise(stamps)) / 1e9


ALWAYS_ON = HostPressure()
