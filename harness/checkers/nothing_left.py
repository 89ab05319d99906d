"""No fault is left behind: every injury that landed was healed, and no trace of one is found afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from harness.checkers.types import Evidence
from harness.results import CheckResult


@dataclass(frozen=True, kw_only=True)
class NothingLeft:
    name: str = "nothing_left"

    def check(self, evidence: Evidence) -> CheckResult:
        held = [fault.name for fault in evidence.faults if fault.asked_ns is not None and fault.healed_ns is None]
        if held:
            return CheckResult(name=self.name, verdict="fail", why=f"not healed: {', '.join(held)}")
        if evidence.left_behind is None:
            return CheckResult(name=self.name, verdict="unknown", why="nobody looked for traces of the faults")
        if evidence.left_behind:
            return CheckResult(name=self.name, verdict="fail", why=f"left behind: {'; '.join(evidence.left_behind)}")
        return CheckResult(name=self.name, verdict="pass", why="every fault healed, no trace found")


ALWAYS_ON = NothingLeft()
