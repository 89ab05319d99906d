"""Transactions that the failover caught end at both ends: nobody waits for ever, nothing rings for nobody, and the
calls in which they were made can still be held, resumed and ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.checkers.types import Evidence
from harness.clock import NS_PER_S
from harness.in_flight import Caught, caught, standing
from harness.results import CheckResult, Verdict

STANDING = ("hold", "refer")
"""The kinds that are made in a call which was up before the fault."""


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """Fails on a transaction without an end `within_s` after its beginning (RFC 3261: timers B and F end one after
    64*T1, 32 s), on a standing call that does not work any more, and on more than `max_orphans` calls of which only one
    end knows that they are over (None: told, not judged). Unknown where nothing was under way at the fault."""

    name: str = "in_flight"
    within_s: float = 34.0
    max_orphans: int | None = 0

    def __post_init__(self) -> None:
        if self.within_s <= 0 or (self.max_orphans is not None and self.max_orphans < 0):
            raise ValueError(f"within_s is above 0 and max_orphans at least 0, not {self.within_s}, {self.max_orphans}")

    def check(self, evidence: Evidence) -> CheckResult:
        found = caught(
            evidence.ops,
            fault_ns=evidence.first_fault_ns,
            landed_ns=evidence.first_landed_ns,
            back_ns=evidence.back_ns,
        )
        if not found:
            return self._result("unknown", "the failover caught no transaction", {})
        asked = standing(evidence.ops)
        dead = [call for call in asked if not call.alive]
        orphans = [one for one in found if one.orphan is not None]
        hung = [one for one in found if self._is_hung(one, evidence.end_ns)]
        pending = [one for one in found if one.ended_ns is None and one not in hung]
        metrics = {"caught": len(found), "orphans": len(orphans), "hung": len(hung), "pending": len(pending)}
        metrics |= {"standing": len(asked), "dead": len(dead)}
        if hung:
            why = f"{len(hung)} of {len(found)} transactions had no end within {self.within_s:g} s: {_names(hung)}"
            return self._result("fail", why, metrics, _ops(hung))
        if dead:
            why = f"{len(dead)} of {len(asked)} standing calls do not work any more: {'; '.join(map(str, dead[:3]))}"
            return self._result("fail", why, metrics, [call.op for call in dead])
        if self.max_orphans is not None and len(orphans) > self.max_orphans:
            why = f"{len(orphans)} of {len(found)} left an orphan: {_names(orphans)}, {orphans[0].orphan}"
            return self._result("fail", why, metrics, _ops(orphans))
        if pending:
            why = f"{len(pending)} of {len(found)} were still under way when the run ended: {_names(pending)}"
            return self._result("unknown", why, metrics, _ops(pending))
        if not any(one.when == "at the fault" for one in found):
            return self._result("unknown", "no transaction was under way when the fault struck", metrics)
        if not asked and any(one.kind in STANDING for one in found):
            return self._result("unknown", "the standing calls were not asked in the end", metrics)
        told = "" if self.max_orphans is not None else " (told, not judged)"
        why = f"{len(found)} transactions were caught, all came to an end; {len(orphans)} left an orphan{told}"
        return self._result("pass", f"{why}; {len(asked)} standing calls work", metrics)

    def _is_hung(self, one: Caught, end_ns: int) -> bool:
        return ((one.ended_ns or end_ns) - one.begun_ns) / NS_PER_S > self.within_s

    def _result(self, verdict: Verdict, why: str, metrics: dict[str, Any], ops: Sequence[int] = ()) -> CheckResult:
        return CheckResult(name=self.name, verdict=verdict, why=why, metrics=metrics, evidence=tuple(ops[:20]))


def _ops(some: list[Caught]) -> list[int]:
    return [index for one in some for index in one.ops]


def _names(some: list[Caught]) -> str:
    return ", ".join(f"{one.kind} ({one.client})" for one in some[:3])


def in_flight(*, within_s: float = 34.0, max_orphans: int | None = 0) -> InFlight:
    """Every transaction that the failover caught ends in time, and with both ends of one mind."""
    return InFlight(within_s=within_s, max_orphans=max_orphans)
