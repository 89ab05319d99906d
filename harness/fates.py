"""What became of each call that was held across the fault: its fate, in four parts.

Pure: ops in, fates out. A fate is what happened *without help*: everything up to the call's `unaided` op, after which
the harness itself asks (a re-INVITE from either end, then BYE). What only came back then was helped by the client.

* band: the longest silence of the worse direction - seamless, recovered, degraded, late, or never (one direction at
  least did not come back, or came back and decayed);
* direction: which ways carried the right audio when the unaided time ended;
* helped_by: nobody, the PBX's own re-INVITE, the client's re-INVITE, None where no help brought both ways back;
* dialog: whether the signalling of the call still existed when it was ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, get_args

from harness.clients.rtp.silence import Silence
from harness.clock import NS_PER_S
from harness.history import Op
from harness.results import Interval, Outage

Band = Literal["seamless", "recovered", "degraded", "late", "never"]
Direction = Literal["both", "one-way", "none"]
Helper = Literal["nobody", "pbx", "client"]
DialogEnd = Literal["alive", "ended by the PBX", "481", "silent", "refused", "not asked"]
Side = Literal["caller", "callee"]

BANDS: tuple[tuple[Band, float], ...] = (("seamless", 0.3), ("recovered", 5.0), ("degraded", 15.0))
"""Each band and the gap it ends below, in seconds; from the last on it is late."""

ALL_BANDS: tuple[Band, ...] = get_args(Band)
DIALOG_ENDS: tuple[DialogEnd, ...] = get_args(DialogEnd)
SIDES: tuple[Side, Side] = ("caller", "callee")

STILL_SILENT_NS = NS_PER_S
"""A direction that has carried nothing for this long when the unaided time ends is not back."""

FRAME_S = 0.02
"""One packet: a silence began at most this long after the last packet heard, and ended at most this before the next."""

UNHEARD_NS = round(2.5 * NS_PER_S)
"""Media engines tell once a second: what none told of for so long before the unaided time ended was not listened to."""

HANGING_UP_NS = NS_PER_S // 10
"""A silence that begins this little before a call is ended belongs to its end."""

RELAYED_NS = 32 * NS_PER_S
"""A re-INVITE that reaches one end within 64*T1 after the other end sent one is that one, passed on by the PBX."""


@dataclass(frozen=True, kw_only=True)
class Fate:
    """One held call. `gap_s` says per side (where it was heard) the longest silence in seconds that touches the time
    after the fault; 0 where there was none worth recording, None where that direction did not come back."""

    call: str
    kind: str
    transport: str
    band: Band
    direction: Direction
    helped_by: Helper | None
    dialog: DialogEnd
    gap_s: Mapping[Side, float | None]
    decayed: bool
    evidence: tuple[int, ...] = ()

    @property
    def worst_gap_s(self) -> float | None:
        """The longer of the two gaps; None when a direction never came back."""
        gaps = [self.gap_s[side] for side in SIDES]
        return None if None in gaps else max(gap for gap in gaps if gap is not None)


@dataclass(frozen=True, kw_only=True)
class HeldCall:
    """Everything observed of one held call."""

    call: str
    kind: str
    transport: str
    invoke: Op
    up: Op | None
    unaided_ns: int | None
    events: tuple[Op, ...]
    silences: Mapping[Side, Sequence[Silence]]
    heard: frozenset[Side]
    told_ns: Mapping[Side, int] = field(default_factory=dict)
    """When the media engine of a side last said anything of this call."""

    def was_up(self, at_ns: int) -> bool:
        """Established with audio both ways before `at_ns`, and not ended by then."""
        ended = any(op.value["event"] in ("ended", "bye_received") and op.time_ns < at_ns for op in self.events)
        return self.up is not None and self.up.time_ns < at_ns and not ended

    @property
    def listened_to(self) -> bool:
        """Whether somebody listened at both ends until the unaided time was over; else nothing can be said of it."""
        if self.unaided_ns is None or not self.told_ns:
            return True
        return all(self.told_ns.get(side, 0) >= self.unaided_ns - UNHEARD_NS for side in SIDES if side in self.heard)

    @property
    def hung_up_ns(self) -> int | None:
        """When it was ended after the unaided time."""
        ends = [op.time_ns for name in ("bye_sent", "bye_received") for op in self.of(name)]
        return min((at_ns for at_ns in ends if self.unaided_ns is not None and at_ns >= self.unaided_ns), default=None)

    def of(self, event: str) -> list[Op]:
        return [op for op in self.events if op.value["event"] == event]


def lasted_ns(silence: Silence, until_ns: int) -> int:
    """How long a silence had lasted by then."""
    return (until_ns if silence.to_ns is None else min(silence.to_ns, until_ns)) - silence.from_ns


def band_of(gap_s: float | None) -> Band:
    """The band of a gap in seconds; None never ended."""
    if gap_s is None:
        return "never"
    return next((band for band, below_s in BANDS if gap_s < below_s), "late")


def held_calls(ops: Iterable[Op], silences: Mapping[tuple[str, str], Sequence[Silence]]) -> list[HeldCall]:
    """Every held call of a run. `silences` has, per (call, side), what the media said; a side that is not in it was
    never heard."""
    invokes: dict[str, Op] = {}
    ups: dict[str, Op] = {}
    unaided: dict[str, int] = {}
    events: dict[str, list[Op]] = {}
    told: dict[tuple[str, str], int] = {}
    for op in ops:
        if op.f == "media_second":
            told |= {_leg(key): op.time_ns for key in op.value["legs"]}
        elif op.f in ("media_gap", "media_leg"):
            told[op.value["call"], op.value["side"]] = op.time_ns
        elif op.f == "call":
            (invokes if op.type == "invoke" else ups if op.type == "ok" else {})[op.value["call"]] = op
        elif op.f == "call_event":
            events.setdefault(op.value["call"], []).append(op)
        elif op.f == "unaided":
            unaided.setdefault(op.value["call"], op.time_ns)
    return [
        HeldCall(
            call=call,
            kind=invoke.value["kind"],
            transport=invoke.value["transport"],
            invoke=invoke,
            up=ups.get(call),
            unaided_ns=unaided.get(call),
            events=tuple(events.get(call, ())),
            silences={side: silences.get((call, side), ()) for side in SIDES},
            heard=frozenset(side for side in SIDES if (call, side) in silences),
            told_ns={side: told[call, side] for side in SIDES if (call, side) in told},
        )
        for call, invoke in invokes.items()
    ]


def _leg(key: str) -> tuple[str, str]:
    call, _, side = key.rpartition("/")
    return call, side


def media_outage(fates: Sequence[Fate], calls: Sequence[HeldCall], *, fault_ns: int, end_ns: int) -> Outage | None:
    """The media clock: the silence of the slowest call that came back by itself; one that never ended where none did.

    Calls that did not come back are the business of their fates. None when no call fell silent for as long as a person
    would notice (`seamless`).
    """
    back = [fate for fate in fates if fate.band != "never"]
    by_name = {held.call: held for held in calls}
    if fates and not back:
        return _never_back(fates, by_name, fault_ns=fault_ns, end_ns=end_ns)
    slow = max(back, key=lambda fate: fate.worst_gap_s or 0.0, default=None)
    if slow is None or slow.band == "seamless":
        return None
    held = by_name[slow.call]
    until_ns = min(held.unaided_ns or end_ns, end_ns)
    touching = [s for side in SIDES for s in _touching(held, side, fault_ns=fault_ns, until_ns=until_ns) if s.to_ns]
    if not touching:
        return _never_back([slow], by_name, fault_ns=fault_ns, end_ns=end_ns)
    longest = max(touching, key=lambda s: lasted_ns(s, until_ns))
    upper_s = lasted_ns(longest, until_ns) / NS_PER_S
    return Outage(
        clock="media",
        start_ns=longest.from_ns,
        end_ns=longest.to_ns,
        duration=Interval(lower_s=max(0.0, upper_s - 2 * FRAME_S), upper_s=upper_s),
        evidence=slow.evidence,
    )


def _never_back(fates: Sequence[Fate], calls: Mapping[str, HeldCall], *, fault_ns: int, end_ns: int) -> Outage:
    """No call came back by itself: down since the fault at most, and since the last of them fell silent for good at
    least."""
    silent_since = [
        s.from_ns for fate in fates for side in SIDES for s in calls[fate.call].silences[side] if s.to_ns is None
    ]
    last_ns = max((at_ns for at_ns in silent_since if at_ns < end_ns), default=fault_ns)
    watched_s, surely_s = ((end_ns - at_ns) / NS_PER_S for at_ns in (fault_ns, max(last_ns, fault_ns)))
    return Outage(
        clock="media",
        start_ns=fault_ns,
        end_ns=None,
        duration=Interval(lower_s=max(0.0, min(surely_s, watched_s) - FRAME_S), upper_s=watched_s),
        evidence=fates[0].evidence,
    )


def fate_of(held: HeldCall, *, fault_ns: int, end_ns: int) -> Fate:
    """The fate of a call that was up at `fault_ns`; `end_ns` is when watching ended."""
    unaided_ns = min(held.unaided_ns or end_ns, end_ns)
    dialog = _dialog(held, fault_ns=fault_ns, unaided_ns=unaided_ns)
    over = dialog == "ended by the PBX"  # then both ends fell silent because they were told to
    gaps = {side: None if over else _gap_s(held, side, fault_ns=fault_ns, unaided_ns=unaided_ns) for side in SIDES}
    back = [side for side in SIDES if gaps[side] is not None]
    direction: Direction = "both" if len(back) == 2 else "one-way" if back else "none"
    band = band_of(max(gap for gap in gaps.values() if gap is not None)) if direction == "both" else "never"
    return Fate(
        call=held.call,
        kind=held.kind,
        transport=held.transport,
        band=band,
        direction=direction,
        helped_by=_helper(held, direction, fault_ns=fault_ns, unaided_ns=unaided_ns),
        dialog=dialog,
        gap_s=gaps,
        decayed=direction != "both" and not over and _came_back(held, fault_ns=fault_ns, unaided_ns=unaided_ns),
        evidence=tuple(op.index for op in (held.invoke, held.up, *held.events[-3:]) if op is not None),
    )


def _touching(held: HeldCall, side: Side, *, fault_ns: int, until_ns: int) -> list[Silence]:
    """The silences of a side that lasted into the time between fault and `until_ns`; not those that were asked for."""
    found = [s for s in held.silences[side] if s.from_ns < until_ns and (s.to_ns is None or s.to_ns > fault_ns)]
    return [s for s in found if not s.held]


def _gap_s(held: HeldCall, side: Side, *, fault_ns: int, unaided_ns: int) -> float | None:
    """The longest silence of a side; None when it was still silent at the end of the unaided time, or never heard."""
    if side not in held.heard:
        return None
    touching = _touching(held, side, fault_ns=fault_ns, until_ns=unaided_ns)
    for silence in touching:
        open_then = silence.to_ns is None or silence.to_ns > unaided_ns
        until_ns = unaided_ns if silence.to_ns is not None else max(held.hung_up_ns or unaided_ns, unaided_ns)
        if open_then and until_ns - silence.from_ns > STILL_SILENT_NS:
            return None
    return round(max((lasted_ns(s, unaided_ns) for s in touching), default=0) / NS_PER_S, 3)


def _came_back(held: HeldCall, *, fault_ns: int, unaided_ns: int) -> bool:
    """A direction that is silent at the end had come back after an earlier silence: it decayed."""
    for side in SIDES:
        touching = _touching(held, side, fault_ns=fault_ns, until_ns=unaided_ns)
        silent_then = _gap_s(held, side, fault_ns=fault_ns, unaided_ns=unaided_ns) is None
        if silent_then and any(s.to_ns is not None and s.to_ns <= unaided_ns for s in touching):
            return True
    return False


def _helper(held: HeldCall, direction: Direction, *, fault_ns: int, unaided_ns: int) -> Helper | None:
    if direction == "both":
        touching = [s for side in SIDES for s in _touching(held, side, fault_ns=fault_ns, until_ns=unaided_ns)]
        longest = max(touching, key=lambda s: lasted_ns(s, unaided_ns), default=None)
        back_ns = longest.to_ns or 0 if longest is not None else 0
        return "pbx" if any(fault_ns < op.time_ns <= back_ns for op in _own_reinvites(held)) else "nobody"
    asked = [op.time_ns for op in held.of("reinvite_sent") if op.time_ns >= unaided_ns]
    if asked and all(_heard_after(held, side, min(asked)) for side in SIDES):
        return "client"
    return None


def _own_reinvites(held: HeldCall) -> list[Op]:
    """The re-INVITEs that reached an end although the other end had sent none: they are the PBX's own."""
    sent = held.of("reinvite_sent")
    return [
        op
        for op in held.of("reinvite_received")
        if not any(s.value["side"] != op.value["side"] and 0 <= op.time_ns - s.time_ns <= RELAYED_NS for s in sent)
    ]


def _heard_after(held: HeldCall, side: Side, at_ns: int) -> bool:
    """Right audio reached a side after `at_ns`: it was never silent then, or a silence ended after it. The silence of a
    call that was hung up is none."""
    if side not in held.heard:
        return False
    over_ns = held.hung_up_ns
    silences = [s for s in held.silences[side] if over_ns is None or s.from_ns < over_ns - HANGING_UP_NS]
    return all(s.to_ns is not None for s in silences if s.to_ns is None or s.to_ns > at_ns)


def _dialog(held: HeldCall, *, fault_ns: int, unaided_ns: int) -> DialogEnd:
    if any(fault_ns < op.time_ns < unaided_ns for op in held.of("bye_received")):
        return "ended by the PBX"
    asked = [op for op in held.of("bye_sent") if op.time_ns >= unaided_ns]
    if not asked:
        return "not asked"
    code = asked[0].value.get("code")
    if code is None:
        return "silent"
    return "alive" if 200 <= code < 300 else "481" if code == 481 else "refused"


def as_row(fate: Fate) -> dict[str, Any]:
    """One call as results.json has it."""
    return {
        "call": fate.call,
        "kind": fate.kind,
        "transport": fate.transport,
        "band": fate.band,
        "direction": fate.direction,
        "helped_by": fate.helped_by,
        "dialog": fate.dialog,
        "gap_to_caller_s": fate.gap_s["caller"],
        "gap_to_callee_s": fate.gap_s["callee"],
        "decayed": fate.decayed,
    }


def fates_of(calls: Sequence[HeldCall], *, fault_ns: int, end_ns: int) -> list[Fate]:
    """The fates of the calls that were up when the fault struck."""
    return [fate_of(held, fault_ns=fault_ns, end_ns=end_ns) for held in calls if held.was_up(fault_ns)]


def summary(fates: Sequence[Fate], *, not_up: int = 0) -> dict[str, Any] | None:
    """`calls` of results.json: totals, a row per kind and transport, every call. None when none was held."""
    if not fates and not not_up:
        return None
    groups: dict[tuple[str, str], list[Fate]] = {}
    for fate in fates:
        groups.setdefault((fate.kind, fate.transport), []).append(fate)
    return {
        "total": len(fates),
        "not_up": not_up,
        "by_fate": {band: sum(f.band == band for f in fates) for band in ALL_BANDS},
        "by_kind": [_group_row(kind, transport, group) for (kind, transport), group in groups.items()],
        "gap_s": _spread(fates),
        "calls": [as_row(fate) for fate in fates],
    }


def _group_row(kind: str, transport: str, group: Sequence[Fate]) -> dict[str, Any]:
    return {
        "kind": kind,
        "transport": transport,
        "total": len(group),
        **{band: sum(f.band == band for f in group) for band in ALL_BANDS},
        "one_way": sum(f.direction == "one-way" for f in group),
        "decayed": sum(f.decayed for f in group),
        "by_pbx": sum(f.helped_by == "pbx" for f in group),
        "by_client": sum(f.helped_by == "client" for f in group),
        "dialog": {end: n for end in DIALOG_ENDS if (n := sum(f.dialog == end for f in group))},
        "gap_s": _spread(group),
    }


def _spread(fates: Sequence[Fate]) -> dict[str, float] | None:
    """Least, median and greatest of the worse direction's gap, over the calls that came back."""
    gaps = sorted(f.worst_gap_s for f in fates if f.band != "never" and f.worst_gap_s is not None)
    return {"min": gaps[0], "median": median(gaps), "max": gaps[-1]} if gaps else None
