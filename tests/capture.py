"""Reads a packet capture without the code under test: the independent witness of what was on the wire, and when.

pcap as tcpdump writes it, micro- or nanoseconds, of one interface (Ethernet) or of `any` (Linux cooked, both versions);
IPv4 and UDP only. `gaps_of` is what a leg's silences are by the capture alone.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_FRACTION_NS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
_LINK_HEADER = {1: (14, 12), 113: (16, 14), 276: (20, 0)}
"""Length of the link header and offset of the protocol in it, by link type: EN10MB, LINUX_SLL, LINUX_SLL2."""

_PACKET_TYPE = {113: (0, 2), 276: (10, 1)}
"""Offset and length of Linux's packet type; 4 is a packet that left from here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packet:
    """One UDP packet; `time_ns` since the epoch. `outgoing` where the capture says that it left from here."""

    time_ns: int
    src: str
    dst: str
    sport: int
    dport: int
    payload: bytes
    outgoing: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """Which packets a leg should have heard: to its port, with the mark of the other end (all, where it is empty)."""

    ip: str
    port: int
    mark: bytes = b""


def packets(path: Path) -> Iterator[Packet]:
    """Every UDP packet in file order; a torn last one, fragments and other protocols are left out."""
    data = path.read_bytes()
    order = "<" if struct.unpack_from("<I", data)[0] in _FRACTION_NS else ">"
    magic, link = struct.unpack_from(f"{order}I16xI", data)
    record = struct.Struct(f"{order}IIII")
    at = 24
    while at + record.size <= len(data):
        seconds, fraction, kept, _ = record.unpack_from(data, at)
        frame = data[at + record.size : at + record.size + kept]
        at += record.size + kept
        if len(frame) == kept:
            packet = _udp(frame, link, seconds * 1_000_000_000 + fraction * _FRACTION_NS[magic])
            if packet is not None:
                yield packet


def right_times_ns(capture: Iterable[Packet], leg: Heard) -> list[int]:
    """When the packets arrived that the leg should have heard, since the epoch, in order."""
    return sorted(
        packet.time_ns
        for packet in capture
        if (packet.dst, packet.dport) == (leg.ip, leg.port) and not packet.outgoing and leg.mark in packet.payload
    )


def gaps_of(capture: Iterable[Packet], leg: Heard, *, silence_ns: int = 60_000_000) -> list[tuple[int, int]]:
    """(last before, first after) of each silence between the packets that the leg should have heard."""
    return [(a, b) for a, b in pairwise(right_times_ns(capture, leg)) if b - a >= silence_ns]


def _udp(frame: bytes, link: int, time_ns: int) -> Packet | None:
    header, protocol_at = _LINK_HEADER[link]
    if frame[protocol_at : protocol_at + 2] != b"\x08\x00":
        return None
    ip = frame[header:]
    if len(ip) < 28 or ip[9] != 17 or int.from_bytes(ip[6:8], "big") & 0x3FFF:
        return None
    start = (ip[0] & 15) * 4
    sport, dport, length = struct.unpack_from("!HHH", ip, start)
    outgoing = False
    if link in _PACKET_TYPE:
        offset, size = _PACKET_TYPE[link]
        outgoing = int.from_bytes(frame[offset : offset + size], "big") == 4
    return Packet(
        time_ns=time_ns,
        src=socket.inet_ntoa(ip[12:16]),
        dst=socket.inet_ntoa(ip[16:20]),
        sport=sport,
        dport=dport,
        payload=ip[start + 8 : start + length],
        outgoing=outgoing,
    )
