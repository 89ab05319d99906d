"""What a checker is, and the evidence it judges. Checkers are pure: the same evidence always gives the same verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.fates import Fate, HeldCall, fates_of
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
    clock, which stamps the logs, moved against the run's clock between steady state and end. `calls` are the calls that
    were held; `claimed_kinds` the kinds of client whose calls the PBX's profile claims to recover. `data` is what was
    read back of the PBX's data after recovery (harness/ledger.py).
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
    calls: Sequence[HeldCall] = ()
    claimed_kinds: Sequence[str] = ()
    data: Sequence[dict[str, Any]] = ()

    @property
    def first_fault_ns(self) -> int:
        """When the first fault that landed was begun; the steady state where none did (a control run).

        Begun, not seen to have landed: a process that is killed closes its connections before anybody sees it gone.
        """
        begun = [min(f.asked_ns or f.landed_ns, f.landed_ns) for f in self.faults if f.landed_ns is not None]
        return min(begun, default=self.steady_ns or 0)

    @property
    def first_landed_ns(self) -> int:
        """When the first fault was seen to have landed: until then requests may still have been answered as ever."""
        return min((f.landed_ns for f in self.faults if f.landed_ns is not None), default=self.first_fault_ns)

    @property
    def back_ns(self) -> int:
        """When the last clock had an end of its outage; the run's end where one had none, the fault where none was."""
        ends = [o.end_ns or self.end_ns for found in self.outages.values() for o in found]
        return max(ends, default=self.first_fault_ns)

    @property
    def fates(self) -> list[Fate]:
        """What became of the held calls that were up when the first fault struck, and listened to."""
        listened = [held for held in self.calls if held.listened_to]
        return fates_of(listened, fault_ns=self.first_fault_ns, end_ns=self.end_ns)

    @property
    def calls_not_up(self) -> list[str]:
        """Calls that were not up by then, or not listened to until the end: of them nothing can be said."""
        return [h.call for h in self.calls if not h.was_up(self.first_fault_ns) or not h.listened_to]

    def of(self, f: str) -> list[Op]:
        """All ops of one kind, in order of time."""
        return [op for op in self.ops if op.f == f]


class Checker(Protocol):
    """Judges one promise."""

    @property
    def name(self) -> str: ...

    def check(self, evidence: Evidence) -> CheckResult: ...
