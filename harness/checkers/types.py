"""What a checker is, and the evidence it judges. Checkers are pure: the same evidence always gives the same verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.history import Op
from harness.results import CheckResult, Outage


@dataclass(frozen=True, kw_only=True)
class FaultRecord:
    """One injury as it was played. Times are CLOCK_MONOTONIC in ns; None means it never happened."""

    name: str
    target: str | None
    asked_ns: int | None
    landed_ns: int | None
    healed_ns: int | None
    observed_by: str | None = None
    error: str | None = None
    heal_error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything a run observed. `None` and empty mean "not observed", which is never good news.

    `cluster` maps the moments "before" and "after" to what `harness.cell.cluster` parsed then, as plain data;
    `left_behind` lists what a fault or a clean-up left, `None` when nobody looked. `roles` says which role (volume,
    filesystem, pbx, address, other) each resource of the policy has; `limits` are the policy's (`outage_limit_s`).
    `alerts` are Pacemaker's alerts and what its logs add, `harness.collect` says which kinds there are; `unread`
    are logs that could not be had. `periods_s` says how often each clock asks; `wall_drift_s` is by how much the wall
    clock, which stamps the logs, moved against the run's clock between steady state and end.
    """

    ops: Sequence[Op]
    clocks: Sequence[str]
    faults: Sequence[FaultRecord]
    steady_ns: int | None
    end_ns: int
    outages: Mapping[str, Sequence[Outage]] = field(default_factory=dict)
    cluster: Mapping[str, Any] = field(default_factory=dict)
    cloud_calls: Sequence[dict[str, Any]] = ()
    region_events: Sequence[dict[str, Any]] = ()
    alerts: Sequence[dict[str, Any]] = ()
    left_behind: Sequence[str] | None = None
    expected_nodes: Sequence[str] = ()
    expected_faults: int = 0
    roles: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, float | None] = field(default_factory=dict)
    periods_s: Mapping[str, float] = field(default_factory=dict)
    wall_drift_s: float = 0.0
    unread: Sequence[str] = ()

    def of(self, f: str) -> list[Op]:
        """All ops of one kind, in order of time."""
        return [op for op in self.ops if op.f == f]


class Checker(Protocol):
    """Judges one promise."""

    @property
    def name(self) -> str: ...

    def check(self, evidence: Evidence) -> CheckResult: ...
