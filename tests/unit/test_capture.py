"""The tests' own reader of packet captures, with captures made by hand."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from tests.capture import Heard, Packet, gaps_of, packets, right_times_ns

MS = 1_000_000


def ip_udp(payload: bytes, *, dport: int = 2000, fragment: int = 0, protocol: int = 17) -> bytes:
    udp = struct.pack("!HHHH", 1000, dport, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton("198.18.0.1") + socket.inet_aton("198.18.0.2")
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, fragment, 64, protocol, 0) + addresses + udp


LINKS = {
    "ethernet": (1, b"\0" * 12 + b"\x08\x00", False),
    "ethernet, IPv6": (1, b"\0" * 12 + b"\x86\xdd", None),
    "cooked, to us": (113, b"\0\0" + b"\0" * 12 + b"\x08\x00", False),
    "cooked, from us": (113, b"\0\4" + b"\0" * 12 + b"\x08\x00", True),
    "cooked 2, to us": (276, b"\x08\x00" + b"\0" * 18, False),
    "cooked 2, from us": (276, b"\x08\x00" + b"\0" * 8 + b"\4" + b"\0" * 9, True),
}


def pcap(path: Path, link: int, frames: list[tuple[int, bytes]], *, magic: int = 0xA1B23C4D) -> Path:
    unit = 1 if magic == 0xA1B23C4D else 1000
    data = struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 256, link)
    for time_ns, frame in frames:
        seconds, rest = divmod(time_ns, 10**9)
        data += struct.pack("<IIII", seconds, rest // unit, len(frame), len(frame)) + frame
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("magic", [0xA1B23C4D, 0xA1B2C3D4])
@pytest.mark.parametrize("link", LINKS)
def test_packets_of_every_kind_of_link(tmp_path: Path, link: str, magic: int) -> None:
    number, header, outgoing = LINKS[link]
    read = list(packets(pcap(tmp_path / "x", number, [(5_000_001_000, header + ip_udp(b"hello"))], magic=magic)))
    if outgoing is None:
        assert read == []
        return
    whole = Packet(
        time_ns=5_000_001_000,
        src="198.18.0.1",
        dst="198.18.0.2",
        sport=1000,
        dport=2000,
        payload=b"hello",
        outgoing=outgoing,
    )
    assert read == [whole]


def test_what_is_torn_or_no_udp_is_left_out(tmp_path: Path) -> None:
    header = LINKS["ethernet"][1]
    frames = [ip_udp(b"a"), ip_udp(b"b", fragment=0x2000), ip_udp(b"c", protocol=6), ip_udp(b"d"), ip_udp(b"torn")]
    path = pcap(tmp_path / "x", 1, [(n, header + frame) for n, frame in enumerate(frames)])
    path.write_bytes(path.read_bytes()[:-2])
    assert [packet.payload for packet in packets(path)] == [b"a", b"d"]


def test_gaps_lie_between_the_packets_that_a_leg_should_have_heard(tmp_path: Path) -> None:
    header = LINKS["ethernet"][1]
    sent = [(0, b"right", 2000), (20, b"right", 2000), (50, b"wrong", 2000), (70, b"right", 3000), (90, b"right", 2000)]
    frames = [(ms * MS, header + ip_udp(payload, dport=port)) for ms, payload, port in sent]
    capture = list(packets(pcap(tmp_path / "x", 1, frames)))
    leg = Heard(ip="198.18.0.2", port=2000, mark=b"right")
    assert right_times_ns(capture, leg) == [0, 20 * MS, 90 * MS]
    assert gaps_of(capture, leg) == [(20 * MS, 90 * MS)]
    assert gaps_of(capture, Heard(ip="198.18.0.2", port=2000)) == []
