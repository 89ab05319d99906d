"""Reads a run's packet capture without the code under test: which OPTIONS left when, and when its answer came."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.capture import packets

_BRANCH = re.compile(rb"branch=([^;\s]+)")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One OPTIONS on the wire; `answered_s` is None when no 200 came. Seconds since the epoch."""

    sent_s: float
    answered_s: float | None


def options(path: Path) -> list[Exchange]:
    """Every OPTIONS of the capture, in order of sending."""
    sent: dict[bytes, float] = {}
    answered: dict[bytes, float] = {}
    for time_s, payload in udp_payloads(path):
        branch = _BRANCH.search(payload)
        if branch is None:
            continue
        if payload.startswith(b"OPTIONS "):
            sent.setdefault(branch[1], time_s)
        elif payload.startswith(b"SIP/2.0 200") and branch[1] in sent:
            answered.setdefault(branch[1], time_s)
    return [Exchange(sent_s=t, answered_s=answered.get(b)) for b, t in sorted(sent.items(), key=lambda item: item[1])]


def sent_twice(path: Path) -> list[bytes]:
    """Branches of OPTIONS that are on the wire more than once: a probe must never retransmit."""
    found = [m[1] for _, p in udp_payloads(path) if p.startswith(b"OPTIONS ") and (m := _BRANCH.search(p))]
    return [branch for branch, count in Counter(found).items() if count > 1]


def longest_outage_s(exchanges: list[Exchange], *, deadline_s: float) -> float:
    """From the last OPTIONS sent that was answered in time before the longest silence to the first answer after it."""
    good = [e for e in exchanges if e.answered_s is not None and e.answered_s - e.sent_s <= deadline_s]
    return max(b.answered_s - a.sent_s for a, b in pairwise(good) if b.answered_s is not None)


def udp_payloads(path: Path) -> Iterator[tuple[float, bytes]]:
    """(time in seconds, payload) of each UDP packet; a torn last packet is left out."""
    for packet in packets(path):
        yield packet.time_ns / 1e9, packet.payload
