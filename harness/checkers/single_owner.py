"""Never two: one node mounts the volume, one runs the PBX; and once settled the same node owns the address, too.

Looks at the `ownership` samples (mounts and processes seen from the host, the address from EC2). A node whose power is
off counts as neither, however its containers look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.checkers.types import Evidence
from harness.history import Op
from harness.results import CheckResult


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
        for what in ("mounted", "pbx"):
            double = [op for op in samples if len(op.value[what]) > 1]
            if double:
                owners = " and ".join(double[0].value[what])
                verb = "mounted the volume" if what == "mounted" else "ran the PBX"
                return CheckResult(
                    name=self.name,
                    verdict="fail",
                    why=f"{owners} {verb} at the same time, in {len(double)} samples",
                    evidence=tuple(op.index for op in double[:20]),
                )
        early = _address_before_volume(samples)
        metrics = {"samples": len(samples), "address_without_volume_samples": len(early)}
        gap_s = _longest_gap_s(samples, evidence)
        if gap_s > self.max_gap_s:
            return CheckResult(
                name=self.name, verdict="unknown", why=f"nobody looked for {gap_s:.1f} s", metrics=metrics
            )
        last = samples[-1]
        mounted, pbx, address = last.value["mounted"], last.value["pbx"], last.value["address"]
        if not (mounted == pbx == [address]):
            return CheckResult(
                name=self.name,
                verdict="fail",
                why=f"in the end the volume is mounted by {mounted}, the PBX runs on {pbx}, the address is {address}'s",
                metrics=metrics,
                evidence=(last.index,),
            )
        why = f"never two in {len(samples)} samples; in the end {address} owns volume, PBX and address"
        if early:
            why += f"; finding: the address was on a node without the volume in {len(early)} samples"
        return CheckResult(
            name=self.name,
            verdict="pass",
            why=why,
            metrics=metrics,
            evidence=tuple(op.index for op in early[:20]),
        )


def _address_before_volume(samples: Sequence[Op]) -> list[Op]:
    """Samples in which a live node held the address without the volume: clients reach a node that can't serve."""
    return [
        op
        for op in samples
        if op.value["address"] in op.value.get("powered", ()) and op.value["address"] not in op.value["mounted"]
    ]


def _longest_gap_s(samples: Sequence[Op], evidence: Evidence) -> float:
    start = evidence.steady_ns if evidence.steady_ns is not None else samples[0].time_ns
    inside = [op.time_ns for op in samples if start <= op.time_ns <= evidence.end_ns]
    stamps = [start, *inside, evidence.end_ns]
    return max(b - a for a, b in pairwise(stamps)) / 1e9


ALWAYS_ON = SingleOwner()
