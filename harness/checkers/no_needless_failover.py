"""While the active node serves, nothing stops or moves: for faults that are no reason for a failover.

An API that is down, a standby that dies, a slow but healthy node: whoever moves the service then makes the outage. It
looks at the owners (mounts, processes, address), at what Pacemaker stopped, and at the clients' clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.checkers.single_owner import live, longest_gap_s
from harness.checkers.types import Evidence
from harness.results import CheckResult, Verdict


@dataclass(frozen=True, kw_only=True)
class NoNeedlessFailover:
    """From the steady state to the end one node owns everything, none of its resources is stopped, no clock is down."""

    name: str = "no_needless_failover"
    max_gap_s: float = 2.0

    def check(self, evidence: Evidence) -> CheckResult:
        since_ns = evidence.steady_ns
        samples = [op for op in evidence.of("ownership") if op.type == "ok" and op.time_ns >= (since_ns or 0)]
        if since_ns is None or not samples:
            return self._result("unknown", "nobody watched who owns volume, PBX and address")
        owner = samples[0].value["address"]
        if [owner] != live(samples[0], "mounted"):
            return self._result("unknown", "no node owned everything in the steady state")
        moved = [
            op for op in samples if not (live(op, "mounted") == live(op, "pbx") == [op.value["address"]] == [owner])
        ]
        stops = [
            row
            for row in evidence.alerts
            if row["kind"] == "resource" and row["task"] == "stop" and row["node"] == owner
            and since_ns <= row["time_ns"] <= evidence.end_ns and row["rsc"] in evidence.roles
        ]  # fmt: skip
        if moved or stops:
            what = (
                f"{stops[0]['rsc']} was stopped on {owner}"
                if stops
                else f"{owner} did not keep volume, PBX and address"
            )
            first_ns = min([op.time_ns for op in moved] + [row["time_ns"] for row in stops])
            why = f"{what}, {(first_ns - since_ns) / 1e9:.1f} s after the steady state, although it served"
            return self._result("fail", why, [op.index for op in moved[:20]])
        hit = {fault.target for fault in evidence.faults if fault.landed_ns is not None}
        shot = sorted(
            {
                str(row["node"])
                for row in evidence.alerts
                if row["kind"] in ("fencing", "fence_requested") and row["node"] not in hit
                and since_ns <= row["time_ns"] <= evidence.end_ns
            }
        )  # fmt: skip
        if shot:
            return self._result("fail", f"{', '.join(shot)} was fenced although no fault hit it")
        down = sorted(clock for clock, found in evidence.outages.items() if found)
        if down:
            return self._result("fail", f"{owner} kept everything, but {', '.join(down)} went unanswered")
        blind_s = longest_gap_s(samples, evidence)
        if blind_s > self.max_gap_s:
            return self._result("unknown", f"nobody looked who owns what for {blind_s:.1f} s")
        if evidence.unread:
            return self._result("unknown", f"whether something was stopped is not known: {'; '.join(evidence.unread)}")
        return self._result(
            "pass", f"{owner} kept volume, PBX and address in {len(samples)} samples and always answered"
        )

    def _result(self, verdict: Verdict, why: str, evidence: Sequence[int] = ()) -> CheckResult:
        return CheckResult(name=self.name, verdict=verdict, why=why, evidence=tuple(evidence))


def no_needless_failover() -> NoNeedlessFailover:
    """The active node keeps everything and answers all the time."""
    return NoNeedlessFailover()
