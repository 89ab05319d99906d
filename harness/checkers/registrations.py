"""Registered clients that lost their way to the PBX are registered again within a limit, by their own doing.

A client that has not even noticed that its connection is dead has lost its way, too. A phone on UDP that noticed
nothing has not: whether its binding is still there is the ledger's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.checkers.limits import check_limit_s, check_min_ratio
from harness.checkers.types import Evidence
from harness.clock import NS_PER_S
from harness.registrations import Coming, comings
from harness.results import CheckResult, Verdict

COUNTED_EVERY_S = 5.0
"""A population tells of itself once a second; one that said nothing for so long has stopped counting."""


@dataclass(frozen=True, kw_only=True)
class RegistrationsBack:
    """At least `min_ratio` of those that lost their flow or a refresh are registered `within_s` after the fault."""

    name: str = "registrations_back"
    min_ratio: float = 0.99
    within_s: float = 60.0

    def __post_init__(self) -> None:
        check_min_ratio(self.min_ratio)
        check_limit_s(self.within_s)

    def check(self, evidence: Evidence) -> CheckResult:
        fault_ns = evidence.first_fault_ns
        clients = comings(evidence.ops, fault_ns=fault_ns)
        if not clients:
            return self._result("unknown", "no client was registered when the fault struck", {})
        silent = self._silent(evidence, {client.kind for client in clients})
        if silent:
            why = f"nobody counted the registered clients of kind {', '.join(silent)} to the end"
            return self._result("unknown", why, {"registered": len(clients)})
        lost = [client for client in clients if client.lost_ns is not None or client.unaware]
        back = [client for client in lost if self._in_time(client, fault_ns)]
        metrics = {"registered": len(clients), "lost": len(lost), "back_in_time": len(back), "within_s": self.within_s}
        metrics["unaware"] = sum(client.unaware for client in clients)
        if not lost:
            return self._result("pass", f"none of {len(clients)} registered clients lost its way", metrics)
        metrics["ratio"] = round(len(back) / len(lost), 4)
        why = f"{len(back)} of {len(lost)} clients that lost their way were registered again within {self.within_s:g} s"
        if len(back) >= self.min_ratio * len(lost):
            return self._result("pass", why, metrics)
        if (evidence.end_ns - fault_ns) / 1e9 < self.within_s:
            ended_s = (evidence.end_ns - fault_ns) / 1e9
            why = f"{len(back)} of {len(lost)} were back when the run ended, {ended_s:.0f} s after the fault"
            return self._result("unknown", why, metrics)
        return self._result("fail", why, metrics)

    def _silent(self, evidence: Evidence, kinds: set[str]) -> list[str]:
        """The kinds whose population stopped telling before the limit, or the run, was over."""
        over_ns = min(evidence.end_ns, evidence.first_fault_ns + round(self.within_s * NS_PER_S))
        since_ns = over_ns - round(COUNTED_EVERY_S * NS_PER_S)
        counted = {op.f for op in evidence.ops if op.time_ns >= since_ns}
        return sorted(kind for kind in kinds if f"clients_{kind}" not in counted)

    def _in_time(self, client: Coming, fault_ns: int) -> bool:
        return client.back_ns is not None and (client.back_ns - fault_ns) / 1e9 <= self.within_s

    def _result(self, verdict: Verdict, why: str, metrics: dict[str, Any]) -> CheckResult:
        return CheckResult(name=self.name, verdict=verdict, why=why, metrics=metrics)


def registrations_back(*, min_ratio: float = 0.99, within_s: float = 60.0) -> RegistrationsBack:
    """A share of the registered clients that lost their way to the PBX is back within a limit."""
    return RegistrationsBack(min_ratio=min_ratio, within_s=within_s)
