"""No fault is left behind: every injury that landed was healed, and no trace of one is found afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from harness.checkers.types import Evidence
from harness.results import CheckResult


@dataclass(frozen=True, kw_only=True)
class NothingLeft:
    """Fails on an injury without a heal and on any trace; an injury that never landed has nothing to heal, but what it
    may have begun shows up in the traces, the undo journal's open entries among them."""

    name: str = "nothing_left"

    def check(self, evidence: Evidence) -> CheckResult:
        held = [f for f in evidence.faults if f.healed_ns is None and (f.landed_ns is not None or f.heal_error)]
        if held:
            names = ", ".join(f"{f.name}{f' ({f.heal_error})' if f.heal_error else ''}" for f in held)
            return CheckResult(name=self.name, verdict="fail", why=f"not healed: {names}")
        if evidence.left_behind is None:
            return CheckResult(name=self.name, verdict="unknown", why="nobody looked for traces of the faults")
        if evidence.left_behind:
            return CheckResult(name=self.name, verdict="fail", why=f"left behind: {'; '.join(evidence.left_behind)}")
        return CheckResult(name=self.name, verdict="pass", why="every fault healed, no trace found")


ALWAYS_ON = NothingLeft()
