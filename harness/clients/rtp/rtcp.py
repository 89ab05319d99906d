"""RTCP (RFC 3550 6): sender and receiver reports with the name of who reports, and what the other side reports back.

No socket and no clock: times are given, packets are bytes. What is torn or not understood ends the reading of a
compound packet and nothing else.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.clients.rtp.stats import Reception, Source
from harness.clock import NS_PER_S

SR, RR, SDES, BYE = 200, 201, 202, 203
INTERVAL_NS = 5 * NS_PER_S
"""RFC 3550 6.2: five seconds on average, anything from half to one and a half of it."""

_NTP_EPOCH_S = 2_208_988_800
_HEADER = struct.Struct("!BBHI")
_SENDER = struct.Struct("!QIII")
_BLOCK = struct.Struct("!IB3sIIII")
_MOST_BLOCKS = 31


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """What an end says about how it receives `ssrc`. `lost` is cumulative, `lsr` and `dlsr` as on the wire."""

    ssrc: int
    fraction_lost: int
    lost: int
    highest: int
    jitter: int
    lsr: int
    dlsr: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One SR or RR; `ntp` is None in an RR."""

    ssrc: int
    ntp: int | None
    blocks: tuple[Block, ...]


def ntp_of(wall_ns: int) -> int:
    """64 bits of NTP time from nanoseconds since the epoch."""
    seconds, rest = divmod(wall_ns, NS_PER_S)
    return (seconds + _NTP_EPOCH_S) << 32 | (rest << 32) // NS_PER_S


def reports(data: bytes) -> Iterator[Report]:
    """The reports of a compound packet, up to the first part that is torn."""
    at = 0
    while at + _HEADER.size <= len(data):
        first, kind, words, ssrc = _HEADER.unpack_from(data, at)
        end = at + 4 * (words + 1)
        if first >> 6 != 2 or end > len(data):
            return
        start = at + _HEADER.size + (_SENDER.size if kind == SR else 0)
        if kind in (SR, RR) and start + (first & 31) * _BLOCK.size <= end:
            ntp = _SENDER.unpack_from(data, at + _HEADER.size)[0] if kind == SR else None
            blocks = (_block(data, start + n * _BLOCK.size) for n in range(first & 31))
            yield Report(ssrc=ssrc, ntp=ntp, blocks=tuple(blocks))
        at = end


def compound(report: Report, *, stamp: int, packets: int, payload_bytes: int, name: str, bye: bool = False) -> bytes:
    """SR (or RR, without `ntp`), SDES with the CNAME, and BYE from an end that leaves."""
    blocks = b"".join(_packed(block) for block in report.blocks[:_MOST_BLOCKS])
    sender = b"" if report.ntp is None else _SENDER.pack(report.ntp, stamp, packets, payload_bytes)
    kind = RR if report.ntp is None else SR
    cname = name.encode()[:255]
    items = bytes([1, len(cname)]) + cname + b"\0"
    items += b"\0" * (-len(items) % 4)
    parts = _part(kind, len(report.blocks[:_MOST_BLOCKS]), report.ssrc, sender + blocks)
    parts += _part(SDES, 1, report.ssrc, items)
    return parts + (_part(BYE, 1, report.ssrc, b"") if bye else b"")


@dataclass(kw_only=True)
class Exchange:
    """The reports of one end, both ways. `rtt_ms` is the newest round trip that the other side's reports gave."""

    ssrc: int
    name: str
    next_ns: int = 0
    received: int = 0
    fraction_lost: float | None = None
    rtt_ms: float | None = None
    _sender_reports: dict[int, tuple[int, int]] = field(default_factory=dict)

    def due(self, at_ns: int) -> bool:
        """Whether to report now; sets when to report next."""
        if at_ns < self.next_ns:
            return False
        first = self.next_ns == 0
        self.next_ns = at_ns + round(INTERVAL_NS * (random.random() + 0.5) * (0.5 if first else 1.0))
        return not first

    def write(
        self, reception: Reception, *, wall_ns: int, stamp: int, sent: int, payload_bytes: int, bye: bool = False
    ) -> bytes:
        """What to send at `wall_ns`; a receiver report from an end that has sent nothing."""
        source = reception.source
        blocks = () if source is None else (self._about(source, wall_ns),)
        report = Report(ssrc=self.ssrc, ntp=ntp_of(wall_ns) if sent else None, blocks=blocks)
        return compound(report, stamp=stamp, packets=sent, payload_bytes=payload_bytes, name=self.name, bye=bye)

    def read(self, data: bytes, *, wall_ns: int) -> None:
        """Take in what came at `wall_ns`."""
        for report in reports(data):
            self.received += 1
            if report.ntp is not None:
                self._sender_reports = {report.ssrc: (report.ntp >> 16 & 0xFFFFFFFF, wall_ns)}
            for block in report.blocks:
                if block.ssrc == self.ssrc:
                    self.fraction_lost = round(block.fraction_lost / 256, 4)
                    if block.lsr:
                        trip = (ntp_of(wall_ns) >> 16) - block.lsr - block.dlsr & 0xFFFFFFFF
                        self.rtt_ms = round(trip / 65.536, 3) if trip < 1 << 31 else 0.0

    def value(self) -> dict[str, int | float | None]:
        return {"received": self.received, "fraction_lost": self.fraction_lost, "rtt_ms": self.rtt_ms}

    def _about(self, source: Source, wall_ns: int) -> Block:
        lsr, came_ns = self._sender_reports.get(source.ssrc, (0, 0))
        return Block(
            ssrc=source.ssrc,
            fraction_lost=source.fraction_lost(),
            lost=source.lost,
            highest=source.highest & 0xFFFFFFFF,
            jitter=source.jitter_units,
            lsr=lsr,
            dlsr=(wall_ns - came_ns) * 65536 // NS_PER_S & 0xFFFFFFFF if lsr else 0,
        )


def _block(data: bytes, at: int) -> Block:
    ssrc, fraction, lost, highest, jitter, lsr, dlsr = _BLOCK.unpack_from(data, at)
    signed = int.from_bytes(lost, "big", signed=True)
    return Block(ssrc=ssrc, fraction_lost=fraction, lost=signed, highest=highest, jitter=jitter, lsr=lsr, dlsr=dlsr)


def _packed(block: Block) -> bytes:
    lost = max(-(1 << 23), min(block.lost, (1 << 23) - 1)).to_bytes(3, "big", signed=True)
    return _BLOCK.pack(block.ssrc, block.fraction_lost, lost, block.highest, block.jitter, block.lsr, block.dlsr)


def _part(kind: int, count: int, ssrc: int, body: bytes) -> bytes:
    return _HEADER.pack(0x80 | count, kind, len(body) // 4 + 1, ssrc) + body
