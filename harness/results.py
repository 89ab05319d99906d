"""What a run concludes: intervals, outages, verdicts. Plain frozen data; every report is a function of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "unknown"]

PHASES = ("detect", "decide", "fence", "stop", "detach", "attach", "mount", "start", "address", "answer")
"""The phases of a failover by name, in the order in which they usually happen."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured duration in seconds. Probes sample, so what was measured is an interval, never a point."""

    lower_s: float
    upper_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.lower_s <= self.upper_s:
            raise ValueError(f"not an interval: {self.lower_s}-{self.upper_s} s")

    @property
    def width_s(self) -> float:
        return self.upper_s - self.lower_s

    def __contains__(self, truth_s: float) -> bool:
        return self.lower_s <= truth_s <= self.upper_s


@dataclass(frozen=True, kw_only=True)
class Outage:
    """One outage as one clock saw it. `start_ns` is when the last good answer before it was *asked for*;
    `end_ns` is None when it never ended within the run, and then `duration.upper_s` is only how long it was watched."""

    clock: str
    start_ns: int
    end_ns: int | None
    duration: Interval
    flapping: int = 0
    late: int = 0
    evidence: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one checker says. `unknown` never rounds to pass; `why` is one line; `evidence` are op indexes."""

    name: str
    verdict: Verdict
    why: str
    metrics: dict[str, Any] = field(default_factory=dict)
    evidence: tuple[int, ...] = ()


def overall(checks: list[CheckResult]) -> Verdict:
    """fail if any check failed, else unknown if any is unknown or there is none, else pass."""
    verdicts = {check.verdict for check in checks}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "unknown"
