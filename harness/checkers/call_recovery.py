"""Calls held across the fault have audio both ways again within a limit, without the client's help.

A share of the calls per kind of client. Kinds for which the PBX's profile claims nothing are reported, not judged: the
promise belongs to the product. A call that only the client's own re-INVITE brought back was not recovered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.checkers.limits import check_limit_s, check_min_ratio
from harness.checkers.types import Evidence
from harness.fates import Fate
from harness.results import CheckResult, Verdict


@dataclass(frozen=True, kw_only=True)
class CallRecovery:
    """At least `min_ratio` of the calls of each claimed kind come back within `within_s` seconds."""

    name: str = "call_recovery"
    min_ratio: float = 1.0
    within_s: float = 15.0
    kinds: tuple[str, ...] = field(default=())
    """The kinds to judge; empty: those that the profile claims (`recovers.calls`)."""

    def __post_init__(self) -> None:
        check_min_ratio(self.min_ratio)
        check_limit_s(self.within_s)

    def check(self, evidence: Evidence) -> CheckResult:
        fates = evidence.fates
        if not evidence.calls:
            return self._result("unknown", "no call was held", {})
        if evidence.calls_not_up:
            count = f"{len(evidence.calls_not_up)} of {len(evidence.calls)} calls"
            why = f"{count} were not up when the fault struck, or nobody listened to them until the end"
            return self._result("unknown", f"{why}: {', '.join(evidence.calls_not_up[:3])}", {})
        unwatched = [held.call for held in evidence.calls if held.unaided_ns is None]
        if unwatched:
            return self._result("unknown", f"not watched to the end: {', '.join(unwatched[:3])}", {})
        groups: dict[str, list[Fate]] = {}
        for fate in fates:
            groups.setdefault(fate.kind, []).append(fate)
        judged = self.kinds or evidence.claimed_kinds
        ratios = {kind: self._ratio(group) for kind, group in groups.items()}
        metrics = {"ratios": ratios, "within_s": self.within_s, "min_ratio": self.min_ratio}
        missing = [kind for kind in self.kinds if kind not in groups]
        if missing:
            return self._result("unknown", f"no call of {', '.join(missing)} was held", metrics)
        if not any(kind in judged for kind in groups):
            return self._result("unknown", f"the profile claims recovery for none of {', '.join(groups)}", metrics)
        broken = [kind for kind in groups if kind in judged and ratios[kind] < self.min_ratio]
        why = "; ".join(self._words(kind, group, judged) for kind, group in groups.items())
        unasked = [fate.call for fate in fates if fate.kind in judged and fate.dialog == "not asked"]
        if unasked and not broken:
            return self._result("unknown", f"{why}; nobody tried to end {', '.join(unasked[:3])}", metrics)
        lost = tuple(i for kind in broken for fate in groups[kind] if not self._recovered(fate) for i in fate.evidence)
        return self._result("fail" if broken else "pass", why, metrics, lost[:12])

    def _recovered(self, fate: Fate) -> bool:
        gap_s = fate.worst_gap_s
        alive = fate.dialog in ("alive", "not asked")
        return gap_s is not None and gap_s <= self.within_s and fate.helped_by != "client" and alive

    def _ratio(self, group: Sequence[Fate]) -> float:
        return round(sum(self._recovered(fate) for fate in group) / len(group), 4)

    def _words(self, kind: str, group: Sequence[Fate], judged: Sequence[str]) -> str:
        text = f"{sum(self._recovered(fate) for fate in group)} of {len(group)} {kind}"
        return text if kind in judged else f"{text} (not claimed)"

    def _result(
        self, verdict: Verdict, why: str, metrics: Mapping[str, Any], evidence: tuple[int, ...] = ()
    ) -> CheckResult:
        return CheckResult(name=self.name, verdict=verdict, why=why, metrics=dict(metrics), evidence=evidence)


def call_recovery(*, min_ratio: float = 1.0, within_s: float = 15.0, kinds: Sequence[str] = ()) -> CallRecovery:
    """At least `min_ratio` of the held calls of each claimed kind have audio both ways within `within_s`."""
    return CallRecovery(min_ratio=min_ratio, within_s=within_s, kinds=tuple(kinds))
