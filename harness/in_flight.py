"""Transactions that a failover catches under way: what became of each, and whether both ends agree on it.

Pure: ops of harness/clients/in_flight.py in, the `in_flight` of results.json out. Caught is what was begun before the
fault and not over by then, and what was begun during the outage. An *orphan* is a call of which one end believes that
it rings or is up after the other end is done with it: a phone that rings for a caller who gave up long ago.
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
    """One transaction. `code` is its final answer's, None while there is none; `orphan` what the other end believes."""

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
    ops: list[int] = field(default_factory=list)

    @property
    def took_s(self) -> float | None:
        return None if self.ended_ns is None else (self.ended_ns - self.begun_ns) / NS_PER_S


RESULTS = {"ok": "completed", "fail": "refused", "info": "unanswered"}


def caught(ops: Iterable[Op], *, fault_ns: int, back_ns: int) -> list[Caught]:
    """Every transaction that was under way when the fault struck, or was begun before the service was back."""
    found: dict[str, Caught] = {}
    for op in ops:
        if op.f == "in_flight" and op.type == "invoke" and op.time_ns < max(back_ns, fault_ns):
            row = op.value
            found[row["id"]] = Caught(
                id=row["id"], kind=row["kind"], client=row["client"], transport=row["transport"],
                when="at the fault" if op.time_ns < fault_ns else "in the outage", begun_ns=op.time_ns, ops=[op.index],
            )  # fmt: skip
        elif op.f == "in_flight" and op.value["id"] in found:
            one = found[op.value["id"]]
            if op.time_ns <= fault_ns:
                del found[one.id]
                continue
            one.ended_ns, one.result, one.code = op.time_ns, RESULTS[op.type], op.value.get("code")
            one.ops.append(op.index)
        elif op.f == "in_flight_orphan" and op.value["id"] in found:
            found[op.value["id"]].orphan = op.value["believes"]
            found[op.value["id"]].ops.append(op.index)
    return list(found.values())


def figures(ops: Sequence[Op], *, fault_ns: int, back_ns: int) -> dict[str, Any] | None:
    """Totals, and a row per kind, client and moment; None when no transactions were made."""
    if not any(op.f == "in_flight" for op in ops):
        return None
    all_of_them = caught(ops, fault_ns=fault_ns, back_ns=back_ns)
    groups: dict[tuple[str, str, str, str], list[Caught]] = {}
    for one in all_of_them:
        groups.setdefault((one.kind, one.client, one.transport, one.when), []).append(one)
    rows = [
        {"kind": kind, "client": client, "transport": transport, "when": when, **_row(group)}
        for (kind, client, transport, when), group in sorted(groups.items())
    ]
    return {**_row(all_of_them), "by_kind": rows, "afterwards": _afterwards(ops)}


def _row(group: Sequence[Caught]) -> dict[str, Any]:
    results = Counter(one.result for one in group)
    took = [one.took_s for one in group if one.result == "completed" and one.took_s is not None]
    return {
        "total": len(group),
        **{name: results[name] for name in (*RESULTS.values(), "unfinished")},
        "codes": dict(sorted(Counter(str(one.code) for one in group if one.code is not None).items())),
        "orphans": dict(Counter(one.orphan for one in group if one.orphan is not None)),
        "longest_s": round(max(took), 3) if took else None,
    }


def _afterwards(ops: Sequence[Op]) -> list[dict[str, Any]]:
    """What the standing calls of the transactions answered in the end."""
    return [dict(op.value) for op in ops if op.f == "in_flight_after"]
