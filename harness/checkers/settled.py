"""The cluster came to rest: all nodes back, all resources running on one node, nothing failed, fencing explained.

Judges what `crm_mon` said before the first fault and after recovery; a fencing nobody's fault explains is a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.checkers.types import Evidence
from harness.results import CheckResult


@dataclass(frozen=True, kw_only=True)
class Settled:
    name: str = "settled"

    def check(self, evidence: Evidence) -> CheckResult:
        for moment in ("before", "after"):
            state = evidence.cluster.get(moment)
            if state is None:
                return CheckResult(name=self.name, verdict="unknown", why=f"no cluster state from {moment} the fault")
            wrong = unsettled(state, evidence.expected_nodes)
            if wrong:
                return CheckResult(name=self.name, verdict="fail", why=f"{moment}: {'; '.join(wrong)}")
        fenced = [
            str(entry["target"])
            for entry in evidence.cluster["after"]["fencing"]
            if entry not in evidence.cluster["before"]["fencing"]
        ]
        hit = {fault.target for fault in evidence.faults}
        unexplained = sorted(set(fenced) - hit)
        if unexplained:
            return CheckResult(
                name=self.name, verdict="fail", why=f"fenced although no fault hit it: {', '.join(unexplained)}"
            )
        nodes, active = len(evidence.expected_nodes), evidence.cluster["after"]["active"]
        return CheckResult(
            name=self.name,
            verdict="pass",
            why=f"{nodes} of {nodes} nodes online, all resources on {active}, nothing failed",
            metrics={"fenced": fenced},
        )


def unsettled(state: dict[str, Any], expected_nodes: tuple[str, ...] | list[str] | Any) -> list[str]:
    """What keeps this cluster state from being at rest, in words; empty when nothing does."""
    wrong = []
    offline = sorted(set(expected_nodes) - set(state["online"]))
    if offline:
        wrong.append(f"not online: {', '.join(offline)}")
    if state["active"] is None:
        wrong.append("the resources are not all started on one node")
    stopped = [r["id"] for r in state["resources"] if r["role"] != "Started"]
    if stopped:
        wrong.append(f"not started: {', '.join(stopped)}")
    if state["failed_actions"]:
        wrong.append(f"failed: {', '.join(state['failed_actions'])}")
    pending = [entry for entry in state["fencing"] if entry.get("status") == "pending"]
    if pending:
        wrong.append("fencing still pending")
    return wrong


ALWAYS_ON = Settled()
