"""Reads a run's packet capture without the code under test: which OPTIONS left when, and when its answer came.

pcap as tcpdump writes it on the `any` device (link types LINUX_SLL and LINUX_SLL2), IPv4 and UDP only.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_BRANCH = re.compile(rb"branch=([^;\s]+)")
LINK_HEADER = {113: (16, 14), 276: (20, 0)}
"""Length of the link header and offset of the protocol in it, by link type."""


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
    data = path.read_bytes()
    magic = struct.unpack_from("<I", data)[0]
    per_second = {0xA1B2C3D4: 1e6, 0xA1B23C4D: 1e9}[magic]
    header, protocol_at = LINK_HEADER[struct.unpack_from("<I", data, 20)[0]]
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, kept, _ = struct.unpack_from("<IIII", data, at)
        packet = data[at + 16 : at + 16 + kept]
        at += 16 + kept
        if len(packet) < kept or packet[protocol_at : protocol_at + 2] != b"\x08\x00":
            continue
        ip = packet[header:]
        if len(ip) >= 28 and ip[9] == 17:
            yield seconds + fraction / per_second, ip[(ip[0] & 15) * 4 + 8 :]
