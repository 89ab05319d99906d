"""The cluster came to rest: all nodes back, all resources running on one node, nothing failed, fencing explained.

Judges what `crm_mon` said before the first fault and after recovery; a fencing nobody's fault explains is a failure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cell.cluster import node_of_failure
from harness.checkers.types import Evidence
from harness.history import Op
from harness.results import CheckResult


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Unknown when the cluster was not at rest *before* the fault: then what came after proves nothing about it."""

    name: str = "settled"

    def check(self, evidence: Evidence) -> CheckResult:
        before, after = evidence.cluster.get("before"), evidence.cluster.get("after")
        if not evidence.expected_nodes:
            return CheckResult(name=self.name, verdict="unknown", why="it is not known which nodes the cluster has")
        if before is None:
            return CheckResult(name=self.name, verdict="unknown", why="no cluster state from before the fault")
        wrong = unsettled(before, evidence.expected_nodes)
        if wrong:
            return CheckResult(name=self.name, verdict="unknown", why=f"not at rest before: {'; '.join(wrong)}")
        if after is None:
            return CheckResult(name=self.name, verdict="unknown", why="no cluster state from after the fault")
        targets = [fault.target for fault in evidence.faults if fault.landed_ns is not None]
        hit = nodes_hit(targets, evidence.expected_nodes, owners=owners_of(evidence.ops))
        wrong = unsettled(after, evidence.expected_nodes, hit=hit)
        if wrong:
            return CheckResult(name=self.name, verdict="fail", why=f"after: {'; '.join(wrong)}")
        fenced = [str(entry["target"]) for entry in after["fencing"] if entry not in before["fencing"]]
        unexplained = sorted(set(fenced) - hit)
        metrics = {"fenced": fenced, "failed_and_recovered": after["failed_actions"]}
        again = fenced_after_return(evidence)
        if again:
            why = f"fenced again after it had been healed and was back: {', '.join(again)}"
            return CheckResult(name=self.name, verdict="fail", why=why, metrics=metrics)
        if unexplained:
            why = f"fenced although no fault hit it: {', '.join(unexplained)}"
            return CheckResult(name=self.name, verdict="fail", why=why, metrics=metrics)
        count = len(evidence.expected_nodes)
        failed = len(after["failed_actions"])
        history = f"{failed} failed where a fault hit, and run again" if failed else "nothing failed"
        why = f"{count} of {count} nodes online, all resources on {after['active']}, {history}"
        return CheckResult(name=self.name, verdict="pass", why=why, metrics=metrics)


def fenced_after_return(evidence: Evidence) -> list[str]:
    """Nodes that were healed, seen as a member again, and then fenced although no later fault hit them."""
    found = set()
    for alert in (a for a in evidence.alerts if a["kind"] == "fence_requested"):
        faults = [
            f for f in evidence.faults if f.target == alert["node"] and f.landed_ns and f.landed_ns <= alert["time_ns"]
        ]
        last = max(faults, key=lambda f: f.landed_ns or 0, default=None)
        if last is None or last.healed_ns is None:
            continue
        back = any(
            a["kind"] == "node" and a["node"] == alert["node"] and a["desc"] == "member"
            and last.healed_ns < a["time_ns"] < alert["time_ns"]
            for a in evidence.alerts
        )  # fmt: skip
        if back:
            found.add(str(alert["node"]))
    return sorted(found)


def owners_of(ops: Iterable[Op]) -> set[str]:
    """The nodes that mounted the volume, ran the PBX or had the address at any time."""
    found: set[str] = set()
    for op in ops:
        if op.f == "ownership" and op.type == "ok":
            found |= {*op.value["mounted"], *op.value["pbx"], op.value["address"]} - {None}
    return found


def nodes_hit(targets: Iterable[str | None], nodes: Sequence[str], *, owners: Collection[str]) -> set[str]:
    """The nodes that faults hit: those they were aimed at; the owners of the service by one that was aimed at no node
    (the volume, the address, the API); nobody by one that strikes the harness alone."""
    found: set[str] = set()
    for target in targets:
        named = set(str(target).split(", "))
        if named != {"harness"}:
            found |= (named & set(nodes)) or (set(owners) & set(nodes))
    return found


def unsettled(state: Mapping[str, Any], expected_nodes: Sequence[str], *, hit: Collection[str] = ()) -> list[str]:
    """What keeps this cluster state from being at rest, in words; empty when nothing does.

    A monitor that failed on a node that a fault `hit`, of what runs again, is what the fault was for: Pacemaker shows
    it until its failure-timeout is over. It is unrest on any other node; a start or stop that failed is unrest
    everywhere, because that node can't take over.
    """
    wrong = []
    offline = sorted(set(expected_nodes) - set(state["online"]))
    if offline:
        wrong.append(f"not online: {', '.join(offline)}")
    unclean = sorted(state.get("unclean", ()))
    if unclean:
        wrong.append(f"unclean: {', '.join(unclean)}")
    if not state.get("quorum", True):
        wrong.append("no quorum")
    if state["active"] is None:
        wrong.append("the resources are not all started on one node")
    stopped = [r["id"] for r in state["resources"] if r["role"] != "Started"]
    if stopped:
        wrong.append(f"not started: {', '.join(stopped)}")
    blocked = [r["id"] for r in state["resources"] if r.get("blocked")]
    if blocked:
        wrong.append(f"blocked: {', '.join(blocked)}")
    failed = [a for a in state["failed_actions"] if "_monitor_" not in a or node_of_failure(a) not in hit]
    if failed:
        wrong.append(f"failed: {', '.join(failed)}")
    pending = sorted({str(entry["target"]) for entry in state["fencing"] if entry.get("status") == "pending"})
    if pending:
        wrong.append(f"fencing still pending: {', '.join(pending)}")
    return wrong


ALWAYS_ON = Settled()
