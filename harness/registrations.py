"""What a failover did to registered clients: how many lost their way to the PBX, and the storm of their coming back.

Pure: ops in, the `registrations` of results.json out. A client is back when the PBX has accepted its REGISTER again
after it lost its flow or a refresh (asleep is not lost). One that noticed nothing is counted as that: a phone on UDP
between two refreshes is reached all the same (its binding is the ledger's business), a client whose connection leads to
a node that has lost the address is not: it is *unaware*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.clock import NS_PER_S
from harness.history import Op
from harness.quantiles import rank

SEEN_NS = NS_PER_S
"""How much later than it happened a move of the address may be seen by those who watch its owner."""

QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(kw_only=True)
class Coming:
    """One client: whether it was registered before the fault, when it first lost its flow or a refresh, when it was
    registered again for good, and how often it was refused."""

    kind: str
    transport: str
    registered_before: bool = False
    lost_ns: int | None = None
    back_ns: int | None = None
    refused: int = 0
    connected_ns: int | None = None
    """When it last showed that it is connected; None while it knows that it is not."""

    unaware: bool = False
    """Its connection leads to a node that has lost the address, and it has not noticed: nobody reaches it."""


@dataclass(kw_only=True)
class _Storm:
    clients: dict[str, Coming] = field(default_factory=dict)
    accepted: Counter[int] = field(default_factory=Counter)
    handshakes: Counter[int] = field(default_factory=Counter)
    """REGISTERs that the PBX accepted and TLS handshakes that were completed, per second: of what was tried in vain
    the history has no count."""

    @property
    def before(self) -> list[Coming]:
        return [client for client in self.clients.values() if client.registered_before]


def comings(ops: Iterable[Op], *, fault_ns: int) -> list[Coming]:
    """Every client that was registered when the fault struck."""
    return _storm(ops, fault_ns).before


def figures(ops: Iterable[Op], *, fault_ns: int) -> dict[str, Any] | None:
    """Totals and a row per kind and transport; None when no population was registered. Seconds count from the fault."""
    storm = _storm(ops, fault_ns)
    before = storm.before
    if not before:
        return None
    groups: dict[tuple[str, str], list[Coming]] = {}
    for client in before:
        groups.setdefault((client.kind, client.transport), []).append(client)
    return {
        **_row(before, fault_ns),
        "peak_accepted_per_s": max(storm.accepted.values(), default=0),
        "peak_completed_handshakes_per_s": max(storm.handshakes.values(), default=0),
        "by_kind": [
            {"kind": kind, "transport": transport, **_row(group, fault_ns)}
            for (kind, transport), group in groups.items()
        ],
    }


def _storm(ops: Iterable[Op], fault_ns: int) -> _Storm:
    storm = _Storm()
    owner: str | None = None
    moved_ns: int | None = None
    for op in ops:
        if op.f == "client":
            _take(storm, op, fault_ns)
        elif op.f == "ownership" and op.type == "ok" and op.value["address"] is not None:
            if owner not in (None, op.value["address"]):
                moved_ns = op.time_ns
            owner = op.value["address"]
    for client in storm.clients.values():
        since_ns = client.connected_ns
        moved = moved_ns is not None and moved_ns > fault_ns
        stale = moved and since_ns is not None and since_ns < (moved_ns or 0) - SEEN_NS
        client.unaware = client.transport != "udp" and stale
    return storm


def _take(storm: _Storm, op: Op, fault_ns: int) -> None:
    value = op.value
    client = storm.clients.setdefault(value["client"], Coming(kind=value["kind"], transport=value["transport"]))
    event = value["event"]
    client.connected_ns = op.time_ns if event in ("flow_up", "registered") else None
    if op.time_ns < fault_ns:
        client.registered_before = event == "registered" or (
            client.registered_before and event in ("flow_up", "asleep")
        )
        return
    second = (op.time_ns - fault_ns) // NS_PER_S
    if event in ("flow_down", "register_failed"):
        client.lost_ns = op.time_ns if client.lost_ns is None else client.lost_ns
        client.back_ns = None
        client.refused += event == "register_failed" and value.get("code") is not None
    elif event == "registered":
        storm.accepted[second] += 1
        if client.lost_ns is not None and client.back_ns is None:
            client.back_ns = op.time_ns
    elif event == "flow_up":
        storm.handshakes[second] += client.transport in ("tls", "wss")


def _row(clients: Sequence[Coming], fault_ns: int) -> dict[str, Any]:
    lost = [client for client in clients if client.lost_ns is not None]
    back = sorted((c.back_ns - fault_ns) / NS_PER_S for c in lost if c.back_ns is not None)
    return {
        "total": len(clients),
        "lost": len(lost),
        "not_back": len(lost) - len(back),
        "unaware": sum(client.unaware for client in clients),
        "refused": sum(client.refused for client in clients),
        "back_s": {f"{q:.0%}": _quantile(back, len(lost), q) for q in QUANTILES} if lost else None,
    }


def _quantile(back: Sequence[float], lost: int, q: float) -> float | None:
    """After how many seconds this share of the lost was back; None while fewer than that are."""
    needed = rank(q, lost)
    return round(back[needed - 1], 3) if needed <= len(back) else None
