"""Transactions that a failover catches under way: what became of each, and whether both ends agree on it.

Pure: ops of harness/clients/in_flight.py in, the `in_flight` of results.json out. Caught is what was begun before the
fault landed and not over by then, and what was begun during the outage. An *orphan* is a call of which one end believes
that it rings or is up after the other end is done with it: a phone that rings for a caller who gave up long ago. It may
end by itself later (`orphan_s`), or is still there at the end. `Standing` is a call in which transactions were made:
does it still work afterwards?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.clock import NS_PER_S
from harness.history import Op

Kind = Literal["ringing", "cancel", "hold", "refer"]
"""A call that rings; a CANCEL of one; a re-INVITE that holds or resumes; a transfer."""

When = Literal["at the fault", "in the outage"]


@dataclass(kw_only=True)
class Caught:
    """One transaction. `code` is its final answer's, None while there is none; `orphan` what the other end believes,
    `orphan_s` how long it did, None while it does. `bye` is what the BYE got that ended an answered call: "none" where
    nothing came back, None where there was none to send."""

    id: str
    kind: str
    client: str
    transport: str
    when: When
    begun_ns: int
    ended_ns: int | None = None
    result: str = "unfinished"
    code: int | None = None
    orphan: str | None = None
    orphan_s: float | None = None
    bye: int | str | None = None
    ops: list[int] = field(default_factory=list)

    @property
    def took_s(self) -> float | None:
        return None if self.ended_ns is None else (self.ended_ns - self.begun_ns) / NS_PER_S


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a standing call said to a re-INVITE and a BYE in the end; None where nothing came back."""

    call: str
    kind: str
    client: str
    transport: str
    reinvite: int | None
    bye: int | None
    op: int = -1

    @property
    def alive(self) -> bool:
        return all(code is not None and 200 <= code < 300 for code in (self.reinvite, self.bye))

    def __str__(self) -> str:
        return f"{self.kind} ({self.client}): re-INVITE {self.reinvite or 'unanswered'}, BYE {self.bye or 'unanswered'}"


RESULTS = {"ok": "completed", "fail": "refused", "info": "unanswered"}


def caught(ops: Iterable[Op], *, fault_ns: int, landed_ns: int, back_ns: int) -> list[Caught]:
    """Every transaction that was under way when the fault struck, or was begun before the service was back.

    The fault is begun at `fault_ns` and seen to have landed at `landed_ns`; what completes in between is
    not caught."""
    found: dict[str, Caught] = {}
    for op in ops:
        if op.f == "in_flight" and op.type == "invoke" and op.time_ns < max(back_ns, landed_ns):
            row = op.value
            found[row["id"]] = Caught(
                id=row["id"], kind=row["kind"], client=row["client"], transport=row["transport"],
                when="at the fault" if op.time_ns < landed_ns else "in the outage", begun_ns=op.time_ns, ops=[op.index],
            )  # fmt: skip
        elif op.f == "in_flight" and op.value["id"] in found:
            one = found[op.value["id"]]
            if op.time_ns <= (landed_ns if op.type == "ok" else fault_ns):
                del found[one.id]
                continue
            one.ended_ns, one.result, one.code = op.time_ns, RESULTS[op.type], op.value.get("code")
            one.ops.append(op.index)
        elif op.f in ("in_flight_orphan", "in_flight_orphan_over", "in_flight_bye") and op.value["id"] in found:
            one = found[op.value["id"]]
            one.orphan = op.value.get("believes", one.orphan)
            one.orphan_s = op.value.get("lasted_s", one.orphan_s)
            if op.f == "in_flight_bye":
                one.bye = op.value["code"] or "none"
            one.ops.append(op.index)
    return list(found.values())


def standing(ops: Iterable[Op]) -> list[Standing]:
    """The standing calls that were asked in the end."""
    return [Standing(**op.value, op=op.index) for op in ops if op.f == "in_flight_after"]


def figures(ops: Sequence[Op], *, fault_ns: int, landed_ns: int, back_ns: int) -> dict[str, Any] | None:
    """Totals, and a row per kind, client and moment; None when no transactions were made."""
    if not any(op.f == "in_flight" for op in ops):
        return None
    all_of_them = caught(ops, fault_ns=fault_ns, landed_ns=landed_ns, back_ns=back_ns)
    groups: dict[tuple[str, str, str, str], list[Caught]] = {}
    for one in all_of_them:
        groups.setdefault((one.kind, one.client, one.transport, one.when), []).append(one)
    rows = [
        {"kind": kind, "client": client, "transport": transport, "when": when, **_row(group)}
        for (kind, client, transport, when), group in sorted(groups.items())
    ]
    return {**_row(all_of_them), "by_kind": rows, "afterwards": _afterwards(standing(ops))}


def _row(group: Sequence[Caught]) -> dict[str, Any]:
    results = Counter(one.result for one in group)
    took = [one.took_s for one in group if one.result == "completed" and one.took_s is not None]
    return {
        "total": len(group),
        **{name: results[name] for name in (*RESULTS.values(), "unfinished")},
        "codes": dict(sorted(Counter(str(one.code) for one in group if one.code is not None).items())),
        "byes": dict(sorted(Counter(str(one.bye) for one in group if one.bye is not None).items())),
        "orphans": dict(Counter(one.orphan for one in group if one.orphan is not None)),
        "orphans_left": sum(one.orphan is not None and one.orphan_s is None for one in group),
        "longest_s": round(max(took), 3) if took else None,
    }


def _afterwards(calls: Sequence[Standing]) -> dict[str, Any]:
    """How many standing calls were asked in the end, and those that do not work any more."""
    return {"asked": len(calls), "dead": [str(call) for call in calls if not call.alive]}
