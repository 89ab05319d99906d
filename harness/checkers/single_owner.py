"""Never two: one node mounts the volume, one runs the PBX; and once settled the same node owns the address, too.

Looks at the `ownership` samples (mounts and processes seen from the host, the address from EC2). A node whose power is
off counts as neither, however its container looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.checkers.types import Evidence
from harness.history import Op
from harness.results import CheckResult, Verdict


@dataclass(frozen=True, kw_only=True)
class SingleOwner:
    """Fails on a single sample with two live mounters or two active PBXs, or when the end state is not one owner.

    `max_gap_s` bounds how long nobody may have looked: a blind stretch longer than that makes the run unknown.
    """

    name: str = "single_owner"
    max_gap_s: float = 2.0

    def check(self, evidence: Evidence) -> CheckResult:
        samples = [op for op in evidence.of("ownership") if op.type == "ok"]
        if not samples:
            return CheckResult(name=self.name, verdict="unknown", why="nobody watched who owns volume, PBX and address")
        early = _address_before_volume(samples)
        metrics = {"samples": len(samples), "address_without_volume_samples": len(early)}
        for what, verb in (("mounted", "mounted the volume"), ("pbx", "ran the PBX")):
            double = [op for op in samples if len(live(op, what)) > 1]
            if double:
                why = f"{' and '.join(live(double[0], what))} {verb} at the same time, in {len(double)} samples"
                return self._result("fail", why, metrics, double)
        last = samples[-1]
        mounted, pbx, address = live(last, "mounted"), live(last, "pbx"), last.value["address"]
        blind_s = longest_gap_s(samples, evidence)
        seen_end = (evidence.end_ns - last.time_ns) / 1e9 <= self.max_gap_s
        if seen_end and not (mounted == pbx == [address]):
            why = (
                f"in the end the volume is mounted by {_names(mounted)}, the PBX runs on {_names(pbx)}, "
                f"the address is {address or 'nobody'}'s"
            )
            return self._result("fail", why, metrics, [last])
        if blind_s > self.max_gap_s:
            return self._result("unknown", f"nobody looked for {blind_s:.1f} s", metrics, [])
        why = f"never two in {len(samples)} samples; in the end {address} owns volume, PBX and address"
        if early:
            why += f"; finding: the address was on a node without the volume in {len(early)} samples"
        return self._result("pass", why, metrics, early)

    def _result(self, verdict: Verdict, why: str, metrics: dict[str, int], decisive: Sequence[Op]) -> CheckResult:
        evidence = tuple(op.index for op in decisive[:20])
        return CheckResult(name=self.name, verdict=verdict, why=why, metrics=metrics, evidence=evidence)


def live(sample: Op, what: str) -> list[str]:
    """The nodes of a sample that mount (`mounted`) or run the PBX (`pbx`) and have power."""
    powered = sample.value.get("powered")
    return [node for node in sample.value[what] if powered is None or node in powered]


def _address_before_volume(samples: Sequence[Op]) -> list[Op]:
    """Samples in which a live node held the address without the volume: clients reach a node that can't serve."""
    return [
        op
        for op in samples
        if op.value["address"] in (op.value.get("powered") or ()) and op.value["address"] not in op.value["mounted"]
    ]


def longest_gap_s(samples: Sequence[Op], evidence: Evidence) -> float:
    """For how long nobody looked who owns what, at most, between steady state and end."""
    start = evidence.steady_ns if evidence.steady_ns is not None else samples[0].time_ns
    inside = [op.time_ns for op in samples if start <= op.time_ns <= evidence.end_ns]
    stamps = [start, *inside, max(evidence.end_ns, start)]
    return max(b - a for a, b in pairwise(stamps)) / 1e9


def _names(nodes: Sequence[str]) -> str:
    return " and ".join(nodes) or "nobody"


ALWAYS_ON = SingleOwner()
