"""The time is accounted for: at most 0.3 s or 5 % of the headline outage has no fact that explains it.

Missing evidence is not the PBX's fault, so too much of it makes the run unknown rather than failed: figures per phase
that miss a part of the outage would send whoever reads them the wrong way.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.checkers.types import Evidence
from harness.phases import breakdown
from harness.results import CheckResult, slowest

MAX_DRIFT_S = 0.05
"""More than any slewing does in a run of minutes (0.5 ms per second at most); a step is longer."""


@dataclass(frozen=True, kw_only=True)
class PhasesExplained:
    name: str = "phases_explained"

    def check(self, evidence: Evidence) -> CheckResult:
        outage = slowest(evidence.outages)
        if outage is None:
            answered = any(op.type == "ok" for clock in evidence.clocks for op in evidence.of(clock))
            if not answered or evidence.steady_ns is None:
                return CheckResult(name=self.name, verdict="unknown", why="no clock ran: nothing to explain")
            return CheckResult(name=self.name, verdict="pass", why="no outage to explain")
        if evidence.wall_drift_s > MAX_DRIFT_S:
            why = f"the wall clock moved by {evidence.wall_drift_s:.3f} s during the run: alerts can't be placed"
            return CheckResult(name=self.name, verdict="unknown", why=why)
        path = breakdown(evidence, outage)
        if path is None:
            why = f"the outage seen by {outage.clock} never ended: its phases can't be told"
            return CheckResult(name=self.name, verdict="unknown", why=why, evidence=outage.evidence)
        metrics = {"unexplained_s": path.unexplained_s, "bound_s": round(path.bound_s, 3), "total_s": path.total_s}
        why = f"{path.unexplained_s:.2f} s of {path.total_s:.2f} s unexplained (bound {path.bound_s:.2f})"
        if not path.explained:
            missing = "" if path.spans else ": not one fact about this outage was found"
            return CheckResult(name=self.name, verdict="unknown", why=why + missing, metrics=metrics)
        return CheckResult(name=self.name, verdict="pass", why=why, metrics=metrics)


ALWAYS_ON = PhasesExplained()
