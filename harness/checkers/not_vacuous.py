"""The run proves something: every probe had a good answer before the first fault and asked until the end, and every
fault was seen to land.

A run without that is *unknown*, whatever the other checks say: a check that nothing could fail is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.checkers.types import Evidence
from harness.results import CheckResult


@dataclass(frozen=True, kw_only=True)
class NotVacuous:
    """Never fails: what did not happen proves nothing, neither good nor bad."""

    name: str = "not_vacuous"
    max_silence_s: float = 2.0
    """How much longer than its period a clock may have been silent at the end: what nobody asks for is never down."""

    def check(self, evidence: Evidence) -> CheckResult:
        doubts = []
        if evidence.steady_ns is None:
            doubts.append("the steady state was never reached")
        if not evidence.clocks:
            doubts.append("no probe ran")
        landed = [fault.landed_ns for fault in evidence.faults if fault.landed_ns is not None]
        if len(landed) < evidence.expected_faults:
            missing = [f"{f.name} ({f.error or 'no reason given'})" for f in evidence.faults if f.landed_ns is None]
            which = f", not {', '.join(missing)}" if missing else ""
            doubts.append(f"{len(landed)} of {evidence.expected_faults} faults landed{which}")
        first_ns = min(landed, default=evidence.end_ns)
        if evidence.calls_not_up:
            doubts.append(f"{len(evidence.calls_not_up)} of {len(evidence.calls)} held calls were not up")
        counts = {}
        for clock in evidence.clocks:
            silent_s = self._silent_s(clock, evidence)
            if silent_s:
                doubts.append(f"the {clock} clock asked nothing in the last {silent_s:.1f} s")
            good = [op.time_ns for op in evidence.of(clock) if op.type == "ok"]
            counts[clock] = len(good)
            if not any(time_ns < first_ns for time_ns in good):
                doubts.append(f"the {clock} clock had no good answer before the first fault")
        if doubts:
            return CheckResult(name=self.name, verdict="unknown", why="; ".join(doubts), metrics={"ok": counts})
        answers = ", ".join(f"{count} {clock}" for clock, count in counts.items())
        return CheckResult(
            name=self.name,
            verdict="pass",
            why=f"{len(landed)} of {evidence.expected_faults} faults landed; good answers: {answers}",
            metrics={"ok": counts},
        )

    def _silent_s(self, clock: str, evidence: Evidence) -> float:
        """How long the clock had not asked at the end, where that is too long; 0 where it is not, or never asked."""
        asked = [op.time_ns for op in evidence.of(clock) if op.type == "invoke"]
        silent_s = (evidence.end_ns - max(asked)) / 1e9 if asked else 0.0
        return silent_s if silent_s > self.max_silence_s + evidence.periods_s.get(clock, 0.0) else 0.0


ALWAYS_ON = NotVacuous()
