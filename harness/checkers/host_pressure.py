"""Was the host able to measure? A busy host makes a run unknown, neither fast nor slow.

Three witnesses: a metronome that should tick every 10 ms and says how late it was, the kernel's pressure figures (PSI),
and corosync's own complaint that it was not scheduled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.checkers.types import Evidence
from harness.results import CheckResult

_NOT_SCHEDULED = re.compile(r"not scheduled for ([0-9.]+) ?(ms|s)")


@dataclass(frozen=True, kw_only=True)
class HostPressure:
    """Unknown when a tick came later than `max_late_ms` (half of SIP's T1 by default), or when more than
    `late_ratio` of the seconds had a tick later than `late_ms`, or when a corosync on a live node was not scheduled."""

    name: str = "host_pressure"
    max_late_ms: float = 250.0
    late_ms: float = 50.0
    late_ratio: float = 0.05

    def check(self, evidence: Evidence) -> CheckResult:
        start = evidence.steady_ns or 0
        seconds = [op for op in evidence.of("metronome") if start <= op.time_ns <= evidence.end_ns]
        if not seconds:
            return CheckResult(name=self.name, verdict="unknown", why="no metronome ran beside the probes")
        worst = max(float(op.value["max_late_ms"]) for op in seconds)
        late = [op for op in seconds if float(op.value["max_late_ms"]) > self.late_ms]
        psi = max(float(op.value.get("psi_cpu_some_ratio") or 0.0) for op in seconds)
        complaints = [m.group(0) for log in evidence.node_logs.values() for m in _NOT_SCHEDULED.finditer(log)]
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
        if complaints:
            doubts.append(f"corosync said {complaints[0]!r}")
        if doubts:
            why = f"the host was too busy to measure: {'; '.join(doubts)}"
            return CheckResult(
                name=self.name, verdict="unknown", why=why, metrics=metrics, evidence=tuple(o.index for o in late[:20])
            )
        return CheckResult(
            name=self.name, verdict="pass", why=f"ticks at most {worst:.0f} ms late, PSI cpu {psi:.0%}", metrics=metrics
        )


ALWAYS_ON = HostPressure()
