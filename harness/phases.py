"""Where the time went: spans from facts, and every instant of an outage given to exactly one of them.

Each span has its own source: Pacemaker's alerts (a node lost, a fencing done, an agent's action with its run time), the
fencer's log (a fencing asked for), EC2 calls from the region's log (CloudTrail on AWS), the clients' first good answer.
Spans may overlap; the critical path is walked backwards from the answer, and what no span covers is `unexplained`.
A fact that nobody saw is never made up: the time it would have explained stays unexplained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.checkers.types import Evidence
from harness.results import PHASES, Outage

ROLE_PHASE = {"volume": "attach", "filesystem": "mount", "pbx": "start", "address": "address", "other": "start"}
"""Which phase the start of a resource of each role is."""

PASS_ON_S = 2.5
"""How long Pacemaker may take from one resource's result to the next one's action and still be said to decide: its
controller sleeps 1-2 s while updates of its information base are pending. What takes longer has another reason."""

DECIDE_S = 3.5
"""How long Pacemaker may take from news (a loss, a fencing, a failed monitor) to its next action: it sleeps 1-2 s while
updates are pending, then computes; 2.2 s is the longest seen on a healthy host. What goes beyond is not explained."""

ANSWER_S = 3.0
"""How long after the last start the first good answer may come: a call's deadline and its periods. What goes beyond is
not explained: something was still missing that no fact tells."""

EPSILON_NS = 50_000_000
"""How much two facts may overlap and still follow each other: Pacemaker's stamps step by 4 ms and arrive late."""

SAME_NEWS_NS = 5_000_000_000
"""Within this time the same news, told by several nodes, is one piece of news."""


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
    def bound_s(self) -> float:
        """How much may stay unexplained: 0.3 s or 5 %, whichever is more."""
        return max(0.3, 0.05 * self.total_s)

    @property
    def explained(self) -> bool:
        return self.unexplained_s <= self.bound_s


def breakdown(evidence: Evidence, outage: Outage) -> Breakdown | None:
    """The critical path of one outage, or None when it never ended."""
    if outage.end_ns is None:
        return None
    return critical_path(spans_of(evidence, outage), start_ns=outage.start_ns, end_ns=outage.end_ns)


def critical_path(spans: Iterable[Span], *, start_ns: int, end_ns: int) -> Breakdown:
    """Give every instant of [start_ns, end_ns] to one span, walking back from the end.

    At each point the span that reaches closest to it was the one waited for, the longest of several; it owns the time
    back to its own start. Where none reaches, nothing is known: unexplained.
    """
    known = tuple(spans)
    seconds = dict.fromkeys(PHASES, 0.0)
    unexplained_ns = 0
    cursor = end_ns
    while cursor > start_ns:
        candidates = [s for s in known if s.start_ns < cursor and s.end_ns > start_ns]
        if not candidates:
            unexplained_ns += cursor - start_ns
            break
        span = max(candidates, key=lambda s: (min(s.end_ns, cursor), -s.start_ns))
        reach = min(span.end_ns, cursor)
        begin = max(span.start_ns, start_ns)
        unexplained_ns += cursor - reach
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
    alerts = _alerts_of(evidence, outage)
    detects = _detects(evidence, alerts, outage)
    fences = _fences(alerts)
    actions = _actions(evidence, alerts)
    decides = _decides(detects, fences, actions, blind=_fenced_unseen(evidence, alerts))
    return [
        *detects,
        *decides,
        *fences,
        *_split_detach(actions, _detaches(evidence, outage)),
        *_answer(actions, start_ns=outage.start_ns, end_ns=outage.end_ns),
    ]


def _alerts_of(evidence: Evidence, outage: Outage) -> list[dict[str, Any]]:
    """The alerts that may belong to this outage, by time: from the fault before it on, begun before its end."""
    landed = [f.landed_ns for f in evidence.faults if f.landed_ns is not None and f.landed_ns <= outage.start_ns]
    since = max(landed, default=outage.start_ns)
    until = outage.end_ns or 0
    rows = [a for a in evidence.alerts if a["time_ns"] >= since and _began(a) < until]
    return sorted(rows, key=lambda a: a["time_ns"])


def _began(alert: dict[str, Any]) -> int:
    return int(alert["time_ns"]) - int(alert.get("exec_ms") or 0) * 1_000_000


def _detects(evidence: Evidence, alerts: Sequence[dict[str, Any]], outage: Outage) -> list[Span]:
    """From the start of the outage to the first word of each lost node and of each resource that failed its monitor.

    A second node that is lost later was injured later: its detection begins when the fault landed on it.
    """
    spans: list[Span] = []
    told: dict[tuple[str, str], int] = {}
    for alert in alerts:
        lost = alert["kind"] == "node" and alert["desc"] == "lost"
        sick = alert["kind"] == "resource" and alert["task"] == "monitor" and alert["rc"] not in (0, None)
        if lost:
            source = f"Pacemaker alert: {alert['node']} lost"
        elif sick and _role(evidence, alert["rsc"]):
            source = f"Pacemaker alert: monitor of {alert['rsc']} failed on {alert['node']}"
        else:
            continue
        key = (alert["kind"], alert["node"])
        if alert["time_ns"] - told.get(key, -SAME_NEWS_NS) >= SAME_NEWS_NS:
            begin = min(_undetected_since(evidence, alert, outage), alert["time_ns"])
            spans.append(Span(phase="detect", start_ns=begin, end_ns=alert["time_ns"], source=source))
        told[key] = alert["time_ns"]
    return spans


def _undetected_since(evidence: Evidence, alert: dict[str, Any], outage: Outage) -> int:
    """The start of the outage, unless the node was hit by a later fault than the one the outage began with."""
    landed = [(f.landed_ns, f.target) for f in evidence.faults if f.landed_ns is not None]
    during = sorted((t, target) for t, target in landed if outage.start_ns <= t <= alert["time_ns"])
    mine = [t for t, target in during if target == alert["node"]]
    return mine[-1] if mine and during[0][1] != alert["node"] else outage.start_ns


def _fences(alerts: Sequence[dict[str, Any]]) -> list[Span]:
    """One span per node and fencing, from the fencer's first request to its success; failures in between are part.

    A success whose request nobody saw is a span of no length: when it began is not known.
    """
    spans: list[Span] = []
    asked: dict[str, int] = {}
    told: dict[str, int] = {}
    for alert in alerts:
        node = alert["node"]
        if alert["kind"] == "fence_requested":
            asked.setdefault(node, alert["time_ns"])
        elif alert["kind"] == "fencing" and alert["rc"] == 0:
            if node in asked or alert["time_ns"] - told.get(node, -SAME_NEWS_NS) >= SAME_NEWS_NS:
                source = f"fencer's log: {node} requested; Pacemaker alert: {alert['desc'] or 'fenced'}"
                begin = asked.pop(node, alert["time_ns"])
                spans.append(Span(phase="fence", start_ns=begin, end_ns=alert["time_ns"], source=source))
            told[node] = alert["time_ns"]
    return spans


def _fenced_unseen(evidence: Evidence, alerts: Sequence[dict[str, Any]]) -> bool:
    """Whether the cluster remembers a fencing of this run of which no alert tells when it was done."""
    before, after = (((evidence.cluster.get(moment) or {}).get("fencing") or []) for moment in ("before", "after"))
    fenced = {entry["target"] for entry in after if entry not in before}
    return not fenced <= {a["node"] for a in alerts if a["kind"] == "fencing"}


def _actions(evidence: Evidence, alerts: Sequence[dict[str, Any]]) -> list[Span]:
    """Starts and stops of the policy's resources, failed ones too, as [alert - run time, alert]."""
    spans = []
    for alert in alerts:
        role = _role(evidence, alert["rsc"]) if alert["kind"] == "resource" else None
        if role is None or alert["task"] not in ("start", "stop"):
            continue
        phase = ROLE_PHASE[role] if alert["task"] == "start" else "stop"
        ending = "" if alert["rc"] == 0 else f" (failed: {alert['desc'] or alert['rc']})"
        source = f"Pacemaker alert: {alert['task']} of {alert['rsc']} on {alert['node']}{ending}"
        spans.append(Span(phase=phase, start_ns=_began(alert), end_ns=alert["time_ns"], source=source))
    return sorted(spans, key=lambda s: (s.start_ns, s.end_ns))


def _decides(detects: Sequence[Span], fences: Sequence[Span], actions: Sequence[Span], *, blind: bool) -> list[Span]:
    """The cluster's own time: from each thing that ended to the next that it began.

    After news from outside - a loss, a failed monitor, a fencing - the cluster computes a transition: `DECIDE_S` of it
    are its own time, the rest is not explained. From one resource to the next it only passes on, and what takes longer
    than `PASS_ON_S` is not explained at all. When there was a fencing that nobody saw (`blind`), the time from a loss
    to the next action is not only the cluster's.
    """
    news = [*detects, *fences]
    spans = []
    for action in [*(f for f in fences if f.end_ns > f.start_ns), *actions]:
        before = [s for s in [*news, *actions] if s is not action and s.end_ns <= action.start_ns + EPSILON_NS]
        last = max(before, key=lambda s: s.end_ns, default=None)
        if last is None or last.end_ns >= action.start_ns:
            continue
        if (blind and last in detects) or (last not in news and action.start_ns - last.end_ns > PASS_ON_S * 1e9):
            continue
        source = f"from [{last.source}] to [{action.source}]"
        until_ns = min(action.start_ns, last.end_ns + round(DECIDE_S * 1e9))
        spans.append(Span(phase="decide", start_ns=last.end_ns, end_ns=until_ns, source=source))
    return spans


def _detaches(evidence: Evidence, outage: Outage) -> list[Span]:
    """DetachVolume calls of the nodes up to the AttachVolume that followed."""
    calls = sorted(
        (c for c in evidence.cloud_calls if c["who"] != "harness" and not c.get("error")), key=lambda c: c["time_ns"]
    )
    inside = [c for c in calls if outage.start_ns <= c["time_ns"] <= (outage.end_ns or 0)]
    attaches = [c["time_ns"] for c in inside if c["action"] == "AttachVolume"]
    spans = []
    for call in inside:
        attach = next((t for t in attaches if t > call["time_ns"]), None)
        if call["action"] == "DetachVolume" and attach is not None:
            spans.append(Span(phase="detach", start_ns=call["time_ns"], end_ns=attach, source="EC2 calls"))
    return spans


def _split_detach(actions: Sequence[Span], detaches: Sequence[Span]) -> list[Span]:
    """The EBS agent detaches, then attaches, in one start: its span up to the AttachVolume call is `detach`."""
    result = []
    for span in actions:
        inside = [
            d for d in detaches if span.phase == "attach" and span.start_ns <= d.start_ns and d.end_ns < span.end_ns
        ]
        if inside:
            cut_ns = max(d.end_ns for d in inside)
            result.append(replace(span, phase="detach", end_ns=cut_ns, source=f"{span.source}; {inside[0].source}"))
            span = replace(span, start_ns=cut_ns)
        result.append(span)
    return result


def _answer(actions: Sequence[Span], *, start_ns: int, end_ns: int) -> list[Span]:
    """From the last start to the first good answer, at most its last `ANSWER_S`; nothing while a start is still
    running: that one was waited for."""
    starts = [s for s in actions if s.phase != "stop" and s.end_ns > start_ns]
    if not starts or any(s.end_ns >= end_ns for s in starts):
        return []
    last = max(s.end_ns for s in starts)
    begin = max(last, end_ns - round(ANSWER_S * 1e9))
    return [Span(phase="answer", start_ns=begin, end_ns=end_ns, source="last start; first good answer")]


def _role(evidence: Evidence, resource: str) -> str | None:
    """What the policy says the resource is, or its name where that is a role; None for what is not part of the PBX."""
    role = evidence.roles.get(resource, resource)
    return role if role in ROLE_PHASE else None
