"""Where the time went: spans from facts, and every instant of an outage given to exactly one of them.

Each span has its own source: Pacemaker's alerts (a node lost, a fencing done, an agent's action with its run time),
EC2 calls from the region's log (CloudTrail on AWS), the clients' first good answer. Spans may overlap; the critical
path is walked backwards from the answer, and what no span covers is `unexplained`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.checkers.types import Evidence
from harness.results import PHASES, Outage

RESOURCE_PHASE = {"ebs": "attach", "fs": "mount", "pbx": "start", "eip": "address"}
"""Which phase the start of each resource of the cell is."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """One phase as one source saw it; times are CLOCK_MONOTONIC in ns."""

    phase: str
    start_ns: int
    end_ns: int
    source: str

    def __post_init__(self) -> None:
        if self.end_ns < self.start_ns:
            raise ValueError(f"{self.phase} ends before it starts")


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Seconds of an outage per phase on the critical path, what stays unexplained, and all spans it was made from."""

    seconds: dict[str, float]
    unexplained_s: float
    total_s: float
    spans: tuple[Span, ...]

    @property
    def explained(self) -> bool:
        """Whether the unexplained rest is within max(0.3 s, 5 %)."""
        return self.unexplained_s <= max(0.3, 0.05 * self.total_s)


def critical_path(spans: Iterable[Span], *, start_ns: int, end_ns: int) -> Breakdown:
    """Give every instant of [start_ns, end_ns] to one span, walking back from the end.

    At each point the span that ends last (but not after the point) was the one waited for; it owns the time back to
    its own start. Between spans nothing is known: unexplained.
    """
    known = tuple(spans)
    usable = [s for s in known if s.end_ns > start_ns and s.start_ns < end_ns]
    seconds = dict.fromkeys(PHASES, 0.0)
    unexplained_ns = 0
    cursor = end_ns
    while cursor > start_ns:
        candidates = [s for s in usable if s.start_ns < cursor]
        if not candidates:
            unexplained_ns += cursor - start_ns
            break
        span = max(candidates, key=lambda s: (min(s.end_ns, cursor), -s.start_ns))
        reach = min(span.end_ns, cursor)
        if reach <= start_ns:
            unexplained_ns += cursor - start_ns
            break
        unexplained_ns += cursor - reach
        begin = max(span.start_ns, start_ns)
        seconds[span.phase] = seconds.get(span.phase, 0.0) + (reach - begin) / 1e9
        cursor = begin
    return Breakdown(
        seconds={phase: round(s, 3) for phase, s in seconds.items()},
        unexplained_s=round(unexplained_ns / 1e9, 3),
        total_s=round((end_ns - start_ns) / 1e9, 3),
        spans=known,
    )


def spans_of(evidence: Evidence, outage: Outage) -> list[Span]:
    """The spans that the evidence yields for one outage; a fact nobody observed yields none."""
    if outage.end_ns is None:
        return []
    alerts = [a for a in evidence.alerts if outage.start_ns <= a["time_ns"] <= outage.end_ns]
    lost = _first(a["time_ns"] for a in alerts if a["kind"] == "node" and a["desc"] == "lost")
    fenced = _first(a["time_ns"] for a in alerts if a["kind"] == "fencing")
    starts = _resource_starts(alerts, outage)
    spans = list(starts)
    if lost is not None:
        spans.append(Span(phase="detect", start_ns=outage.start_ns, end_ns=lost, source="Pacemaker alert: node lost"))
    fence_began = _fence_began(evidence, after_ns=lost or outage.start_ns, before_ns=fenced)
    if fenced is not None and fence_began is not None:
        spans.append(Span(phase="fence", start_ns=fence_began, end_ns=fenced, source="fence agent start, alert"))
        if lost is not None and fence_began > lost:
            spans.append(Span(phase="decide", start_ns=lost, end_ns=fence_began, source="node lost to fencing"))
    after_fence = fenced if fenced is not None else lost
    first_start = _first(s.start_ns for s in starts if after_fence is None or s.start_ns >= after_fence)
    if after_fence is not None and first_start is not None:
        spans.append(Span(phase="decide", start_ns=after_fence, end_ns=first_start, source="transition computed"))
    spans = _split_detach(spans, _detach_spans(evidence, outage))
    if starts:
        last_end = max(s.end_ns for s in starts)
        spans.append(
            Span(phase="answer", start_ns=last_end, end_ns=outage.end_ns, source="last start to the first good answer")
        )
    return spans


def breakdown(evidence: Evidence, outage: Outage) -> Breakdown | None:
    """The critical path of one outage, or None when it never ended."""
    if outage.end_ns is None:
        return None
    return critical_path(spans_of(evidence, outage), start_ns=outage.start_ns, end_ns=outage.end_ns)


def _resource_starts(alerts: Sequence[dict[str, Any]], outage: Outage) -> list[Span]:
    """Starts of the cell's resources that ended well, as [alert - run time, alert]."""
    found = []
    for alert in alerts:
        if alert["kind"] == "resource" and alert["task"] == "start" and alert["rc"] == 0:
            phase = RESOURCE_PHASE.get(alert["rsc"])
            if phase is not None:
                begin = max(alert["time_ns"] - alert["exec_ms"] * 1_000_000, outage.start_ns)
                source = f"Pacemaker alert: {alert['rsc']} started on {alert['node']}"
                found.append(
                    Span(phase=phase, start_ns=min(begin, alert["time_ns"]), end_ns=alert["time_ns"], source=source)
                )
    return found


def _fence_began(evidence: Evidence, *, after_ns: int, before_ns: int | None) -> int | None:
    """When the cluster asked for the fencing that ended at `before_ns`: the fencer's own log line on any node."""
    if before_ns is None:
        return None
    asked = [e["time_ns"] for e in evidence.alerts if e["kind"] == "fence_requested"]
    return _first(t for t in asked if after_ns <= t <= before_ns)


def _detach_spans(evidence: Evidence, outage: Outage) -> list[Span]:
    """DetachVolume calls of the nodes up to the AttachVolume that followed."""
    end_ns = outage.end_ns or 0
    calls = [c for c in evidence.cloud_calls if outage.start_ns <= c["time_ns"] <= end_ns and c["who"] != "harness"]
    spans = []
    for call in calls:
        if call["action"] == "DetachVolume" and not call.get("error"):
            attach = _first(
                c["time_ns"] for c in calls if c["action"] == "AttachVolume" and c["time_ns"] > call["time_ns"]
            )
            if attach is not None:
                spans.append(Span(phase="detach", start_ns=call["time_ns"], end_ns=attach, source="EC2 calls"))
    return spans


def _split_detach(spans: Sequence[Span], detaches: Sequence[Span]) -> list[Span]:
    """The EBS agent detaches, then attaches, in one start: its span up to the AttachVolume call is `detach`."""
    result = []
    for span in spans:
        inside = [
            d for d in detaches if span.phase == "attach" and span.start_ns <= d.start_ns and d.end_ns < span.end_ns
        ]
        if inside:
            cut_ns = max(d.end_ns for d in inside)
            result.append(replace(span, phase="detach", end_ns=cut_ns, source=inside[0].source))
            span = replace(span, start_ns=cut_ns)
        result.append(span)
    return result


def _first(times: Iterable[int]) -> int | None:
    return min(times, default=None)
