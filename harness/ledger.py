"""What the PBX acknowledged, against what was read back after recovery: acknowledged data is never lost.

Pure: ops and the rows of data.jsonl in, accounts per kind out. An acknowledgement is an answer that a client got: the
200 to a REGISTER or to the BYE of an established call, a prompt that was recognised. Kinds: registration, call_record,
recording, log, prompt. Besides those that clients write themselves (`f` is "ack", value {kind, id, …}),
acknowledgements follow from what they tell anyway: registrations, calls that are up, BYEs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from harness.checkers.types import Evidence
from harness.clients.kinds import KINDS
from harness.clients.sip.message import uri_of
from harness.clock import NS_PER_S, WallOffset
from harness.history import Op
from harness.results import split_clock

HELD_AS = {
    "registration": "database",
    "call_record": "database",
    "recording": "recordings",
    "log": "logs",
    "prompt": "prompts",
}
"""Which kind of data of the PBX's profile holds what was acknowledged."""

SLACK_NS = 3 * NS_PER_S
"""By how much the end of a binding may differ from what its client was told: PBXs count whole seconds, at both ends."""

EMPTY_BYTES = 24
"""A recording of no more than this holds nothing: as long is a pcap file's header, and no other format's is shorter."""

Fate = Literal["found", "lost", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Ack:
    """One thing that a client was told is done. `op` is the index of the op that says so.

    `until_ns`: nobody has to keep it longer. `detail` narrows down what must be found: the `event` of a log line, the
    `state` of a recording (without it any part of it will do: the call was still going on), the `contact` of a
    registration and how long its REGISTER took (`took_ms`).
    """

    kind: str
    id: str
    time_ns: int
    op: int
    until_ns: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Account:
    """One kind. `unknown` are acknowledgements of which nothing can be said: nobody could read the data back, or they
    were not found and are younger than the profile's bound (`durable_after_s`) was at a fault or at the end."""

    acknowledged: int = 0
    found: int = 0
    lost: list[Ack] = field(default_factory=list)
    unknown: int = 0

    @property
    def row(self) -> dict[str, int]:
        return {
            "acknowledged": self.acknowledged,
            "found": self.found,
            "lost": len(self.lost),
            "unknown": self.unknown,
        }


@dataclass(frozen=True, kw_only=True)
class ReadBack:
    """data.jsonl: its first row says what the profile declares and when it was read, the others what was found.

    `clock` turns the times of the rows into those of the run; None where that is not known.
    """

    declared: Mapping[str, float]
    read_ns: int
    clock: WallOffset | None
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    unreadable: Mapping[str, str]

    def damaged(self) -> list[str]:
        """What is there and not whole, in words."""
        wrong = [f"half a line in the call log: {row['torn']!r}" for row in self._of("logs") if "torn" in row]
        for kind, name in (("recordings", "recording"), ("prompts", "prompt")):
            wrong += [f"{name} {row[name]} is damaged" for row in self._of(kind) if row.get("intact") is False]
        if "prompts" in self.declared and "prompts" not in self.unreadable and not self._of("prompts"):
            wrong.append("no prompt is there")
        return wrong

    def holds(self, ack: Ack) -> bool:
        """Whether what was acknowledged is among what was read back."""
        if ack.kind == "registration":
            return any(self._binds(row, ack) for row in self._bindings.get(ack.id, ()))
        return (ack.kind, ack.id, ack.detail.get("state") or ack.detail.get("event")) in self._there

    def _binds(self, row: Mapping[str, Any], ack: Ack) -> bool:
        """Whether a row is the binding that its client was told of last, or a later one, whose answer never came. As
        far as the row tells: without contact and expiry any row of the user will do."""
        contact, own = row.get("contact"), ack.detail.get("contact")
        same = not contact or not own or _place(contact) == _place(own)
        if self.clock is None or row.get("expires_at") is None or ack.until_ns is None:
            return same
        expires_ns = self.clock.monotonic_ns(float(row["expires_at"]))
        if same:
            took_ns = round(float(ack.detail.get("took_ms", 0.0)) * 1e6)
            return expires_ns >= ack.until_ns - took_ns - SLACK_NS
        return expires_ns > ack.until_ns + SLACK_NS

    @cached_property
    def _bindings(self) -> dict[str, list[Mapping[str, Any]]]:
        """The rows of registrations by user."""
        bindings: dict[str, list[Mapping[str, Any]]] = {}
        for row in self._of("database"):
            if "registration" in row:
                bindings.setdefault(row["registration"], []).append(row)
        return bindings

    @cached_property
    def _there(self) -> frozenset[tuple[str, str, str | None]]:
        """What was found, as (kind, id, state or event); with None for any."""
        there: set[tuple[str, str, str | None]] = set()
        for row in self._of("database"):
            if "call" in row:
                there.add(("call_record", row["call"], None))
        for row in self._of("recordings"):
            if row.get("intact") is not False and row.get("bytes", EMPTY_BYTES + 1) > EMPTY_BYTES:
                there |= {("recording", row["call"], row["state"]), ("recording", row["call"], None)}
        for row in self._of("logs"):
            if "log" in row:
                there |= {("log", row["log"], row["event"]), ("log", row["log"], None)}
        for row in self._of("prompts"):
            if row.get("intact"):
                there.add(("prompt", str(row["prompt"]), None))
        return frozenset(there)

    def _of(self, kind: str) -> Sequence[Mapping[str, Any]]:
        return self.rows.get(kind, ())


def read_back(rows: Sequence[Mapping[str, Any]]) -> ReadBack | None:
    """data.jsonl as `harness.collect.data` writes it; None when nothing was read."""
    if not rows or "declared" not in rows[0]:
        return None
    head, found = rows[0], rows[1:]
    offset_ns = head.get("wall_offset_ns")
    return ReadBack(
        declared=head["declared"],
        read_ns=head["read_ns"],
        clock=None if offset_ns is None else WallOffset(offset_ns=offset_ns, error_ns=0),
        rows={kind: [row for row in found if row["kind"] == kind and "error" not in row] for kind in head["declared"]},
        unreadable={row["kind"]: row["error"] for row in found if "error" in row},
    )


def accounts(evidence: Evidence, back: ReadBack) -> dict[str, Account]:
    """What became of everything that was acknowledged, per kind; kinds of which nothing was are left out."""
    found: dict[str, Account] = {}
    for ack in acknowledged(evidence.ops):
        if ack.until_ns is not None and ack.until_ns - SLACK_NS <= back.read_ns:
            continue
        account = found.setdefault(ack.kind, Account())
        account.acknowledged += 1
        fate = _fate(ack, evidence, back)
        if fate == "lost":
            account.lost.append(ack)
        else:
            account.found += fate == "found"
            account.unknown += fate == "unknown"
    return found


def _fate(ack: Ack, evidence: Evidence, back: ReadBack) -> Fate:
    held_as = HELD_AS[ack.kind]
    if held_as not in back.declared or held_as in back.unreadable:
        return "unknown"
    if back.holds(ack):
        return _heard_again(evidence) if ack.kind == "prompt" else "found"
    return "unknown" if _too_young(ack, evidence, back) else "lost"


def _heard_again(evidence: Evidence) -> Fate:
    """A prompt is there; what did the caller who listens to it hear last, after the last fault? Nobody was asked
    (`unknown`) where no call was answered or refused since; where nobody listens, that it is there will do."""
    heard = [op for op in evidence.ops if op.f == "prompt" and op.type in ("ok", "fail")]
    if not heard:
        return "found"
    struck_ns = max((fault.landed_ns for fault in evidence.faults if fault.landed_ns is not None), default=0)
    if heard[-1].time_ns <= struck_ns:
        return "unknown"
    return "found" if heard[-1].type == "ok" else "lost"


def figures(evidence: Evidence) -> dict[str, dict[str, int]] | None:
    """The `data` of results.json; None when nothing was read back."""
    back = read_back(evidence.data)
    return {kind: account.row for kind, account in accounts(evidence, back).items()} if back else None


def acknowledged(ops: Sequence[Op]) -> list[Ack]:
    """Everything clients were told is done. Of a user's registrations only the last counts: each replaces the one
    before, and one that was taken back (expires 0) need not be there."""
    registered: dict[str, Ack] = {}
    others: list[Ack] = []
    calls: dict[str, dict[str, Any]] = {}
    for op in ops:
        if op.f == "call":
            calls.setdefault(op.value["call"], {}).update(op.value)
    called_again: set[str] = set()
    for op in ops:
        if op.f == "call_event" and op.value["event"] == "new_call_helped":
            called_again.add(op.value["call"])  # its BYE ends another call
        elif op.f == "call_event" and op.value["event"] == "bye_sent" and op.value["call"] in called_again:
            continue
        for ack in _acks(op, calls):
            if ack.kind == "registration":
                registered[ack.id] = ack
            else:
                others.append(ack)
    return [*registered.values(), *others]


def _acks(op: Op, calls: Mapping[str, Mapping[str, Any]]) -> list[Ack]:
    value = op.value
    if op.type != "ok":
        return []
    if op.f == "ack":
        until_ns, own = _until_ns(op, value.get("expires_s")), value["id"]
        return [Ack(kind=value["kind"], id=own, time_ns=op.time_ns, op=op.index, until_ns=until_ns, detail=value)]
    if op.f == "registration":
        return [_registration(op, value["user"], None)]
    if split_clock(op.f)[0] == "register" and "user" in value:
        return [_registration(op, value["user"], None)]
    if op.f == "client" and value["event"] == "registered":
        return [_registration(op, value["client"], KINDS[value["kind"]].expires_s)]
    if op.f == "call_event" and value["event"] == "registered":
        call = calls.get(value["call"], {})
        return [_registration(op, call[value["side"]], KINDS[call["kind"]].expires_s)] if call else []
    if op.f == "call" and "call_id" in value:
        return [_ack("log", op, value["call_id"], event="started"), *_recording(op, value)]
    if op.f == "call_event" and value["event"] == "bye_sent" and value.get("code") == 200:
        return _ended(op, calls.get(value["call"], {}))
    if op.f.endswith("_bye") and value["code"] == 200:
        return _ended(op, value)
    return []


def _ended(op: Op, call: Mapping[str, Any]) -> list[Ack]:
    """What the 200 to a BYE stands for; nothing where the client does not tell which call it was."""
    if "call_id" not in call:
        return []
    own = call["call_id"]
    return [_ack("call_record", op, own), _ack("log", op, own, event="ended"), *_recording(op, call, state="finished")]


def _recording(op: Op, call: Mapping[str, Any], **detail: Any) -> list[Ack]:
    return [_ack("recording", op, call["call_id"], **detail)] if call.get("recorded") else []


def _registration(op: Op, user: str, asked_s: float | None) -> Ack:
    """Its end is what the PBX granted, where the client says that; else what it asks for."""
    value = op.value
    detail = {str(name): value[name] for name in ("contact", "took_ms") if name in value}
    if "latency_ms" in value:
        detail["took_ms"] = value["latency_ms"]
    until_ns = _until_ns(op, value.get("expires_s", asked_s))
    return Ack(kind="registration", id=user, time_ns=op.time_ns, op=op.index, until_ns=until_ns, detail=detail)


def _ack(kind: str, op: Op, own: str, **detail: Any) -> Ack:
    return Ack(kind=kind, id=own, time_ns=op.time_ns, op=op.index, detail=detail)


def _until_ns(op: Op, expires_s: float | None) -> int | None:
    return None if expires_s is None else op.time_ns + round(expires_s * NS_PER_S)


def _place(contact: str) -> str:
    """User, host and port of a contact; PBXs write the rest of it in their own way."""
    return uri_of(contact).partition(";")[0].partition(":")[2]


def _too_young(ack: Ack, evidence: Evidence, back: ReadBack) -> bool:
    """Whether a fault struck, or the data was read, before the profile promises that it is durable."""
    safe_ns = ack.time_ns + round(back.declared[HELD_AS[ack.kind]] * NS_PER_S)
    struck = [
        (fault.asked_ns, fault.landed_ns) for fault in evidence.faults if fault.asked_ns is not None and fault.landed_ns
    ]
    return safe_ns > back.read_ns or any(ack.time_ns <= landed and safe_ns > asked for asked, landed in struck)
