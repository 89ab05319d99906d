"""Sends ICMP errors across the router with translated addresses, outside and inside.

An ICMP error quotes the packet it is about. Behind a 1:1 translation that quote has to be translated as well, or the
receiver does not recognise its own packet and a closed port looks like silence. nft without state cannot do it, so it
drops these errors and this process, in the router's network namespace, reads them from a packet socket (which sees them
before nft), translates both headers with right checksums (RFC 5508, section 4.2), and sends them on.

Run as `nsenter -t <router pid> -n python -m harness.region.icmp --cell NAME --slot N`; ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import selectors
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from harness.region.addresses import ICMP_MARK, TABLE_FILE
from harness.topology import Topology

ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP = 1, 6, 17
ERRORS = (3, 11, 12)
"""Destination unreachable, time exceeded, parameter problem. Source quench is obsolete (RFC 6633), redirects local."""

Table = Mapping[IPv4Address, IPv4Address]


def translate(packet: bytes, *, from_vpc: bool, table: Table, topology: Topology) -> bytes | None:
    """The same ICMP error for the other side, or None when it must not pass. `packet` starts at the IP header.

    `table` is {public: private}. Outside, addresses are translated as for any packet; the quoted packet went the
    other way, so its destination is treated like the outer source and its source like the outer destination.
    """
    header = _header_bytes(packet)
    if header is None or packet[9] != PROTOCOL_ICMP or len(packet) < header + 8 or packet[header] not in ERRORS:
        return None
    quote = bytearray(packet[header + 8 :])
    quoted_header = _header_bytes(quote)
    if quoted_header is None:
        return None
    source = _translated_source(_address(packet, 12), from_vpc=from_vpc, table=table, topology=topology)
    target = _translated_target(_address(packet, 16), from_vpc=from_vpc, table=table, topology=topology)
    quoted_target = _translated_source(_address(quote, 16), from_vpc=from_vpc, table=table, topology=topology)
    quoted_source = _translated_target(_address(quote, 12), from_vpc=from_vpc, table=table, topology=topology)
    if source is None or target is None or quoted_target is None or quoted_source is None:
        return None
    _readdress(quote, quoted_header, quoted_source, quoted_target)
    ttl = packet[8] - 1
    if ttl <= 0:
        return None
    outer = bytearray(packet[:header])
    outer[8] = ttl
    outer[10:12] = b"\0\0"
    outer[12:16], outer[16:20] = source.packed, target.packed
    struct.pack_into("!H", outer, 10, checksum(outer))
    message = bytearray(packet[header : header + 8]) + quote
    message[2:4] = b"\0\0"
    struct.pack_into("!H", message, 2, checksum(message))
    return bytes(outer + message)


def _translated_source(address: IPv4Address, *, from_vpc: bool, table: Table, topology: Topology) -> IPv4Address | None:
    """What `from_vpc` and `from_internet` of the nft rules do with a source address."""
    if not from_vpc:
        return address if address in topology.internet_subnet else None
    return next((public for public, private in table.items() if private == address), None)


def _translated_target(address: IPv4Address, *, from_vpc: bool, table: Table, topology: Topology) -> IPv4Address | None:
    """What the nft rules do with a destination address."""
    if address in topology.elastic_range:
        return table.get(address)
    return address if from_vpc and address in topology.internet_subnet else None


def _readdress(quote: bytearray, header: int, source: IPv4Address, target: IPv4Address) -> None:
    """Change the addresses of a quoted packet, its header checksum and, where quoted, its transport checksum."""
    old = bytes(quote[12:20])
    new = source.packed + target.packed
    quote[12:20] = new
    _adjust(quote, 10, old, new)
    place = {PROTOCOL_TCP: header + 16, PROTOCOL_UDP: header + 6}.get(quote[9])
    first_fragment = not struct.unpack_from("!H", quote, 6)[0] & 0x1FFF
    if place is not None and first_fragment and len(quote) >= place + 2:
        absent = quote[9] == PROTOCOL_UDP and quote[place : place + 2] == b"\0\0"
        if not absent:
            _adjust(quote, place, old, new)


def _adjust(data: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Update the checksum at `at` for `old` having become `new` (RFC 1624, equation 3)."""
    total = ~struct.unpack_from("!H", data, at)[0] & 0xFFFF
    for (before,), (after,) in zip(struct.iter_unpack("!H", old), struct.iter_unpack("!H", new), strict=True):
        total += (~before & 0xFFFF) + after
    struct.pack_into("!H", data, at, ~_folded(total) & 0xFFFF)


def checksum(data: bytes | bytearray) -> int:
    """The internet checksum (RFC 1071) of `data`, whose own checksum field is zero."""
    padded = bytes(data) + b"\0" * (len(data) % 2)
    return ~_folded(sum(word for (word,) in struct.iter_unpack("!H", padded))) & 0xFFFF


def _folded(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _header_bytes(packet: bytes | bytearray) -> int | None:
    """Length of an IPv4 header, or None when there is none."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    length = (packet[0] & 0xF) * 4
    return length if 20 <= length <= len(packet) else None


def _address(packet: bytes | bytearray, at: int) -> IPv4Address:
    return IPv4Address(bytes(packet[at : at + 4]))


_FILTER: Sequence[tuple[int, int, int, int]] = (
    (0x30, 0, 0, 9),  # ldb [9]: protocol
    (0x15, 0, 8, PROTOCOL_ICMP),
    (0x28, 0, 0, 6),  # ldh [6]: fragment offset
    (0x45, 6, 0, 0x1FFF),
    (0xB1, 0, 0, 0),  # ldx 4*([0]&0xf): header length
    (0x50, 0, 0, 0),  # ldb [x]: ICMP type
    (0x15, 2, 0, ERRORS[0]),
    (0x15, 1, 0, ERRORS[1]),
    (0x15, 0, 1, ERRORS[2]),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)
"""Classic BPF on a cooked packet socket: pass ICMP errors only, so that media never wakes this process."""


def _packet_socket(interface: str) -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    program = b"".join(struct.pack("HBBI", *line) for line in _FILTER)
    buffer = ctypes.create_string_buffer(program)
    pointer = struct.pack("HL", len(_FILTER), ctypes.addressof(buffer))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
    listener.bind((interface, ETH_P_IP))
    return listener


def _raw_socket() -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, ICMP_MARK)
    return sender


def _load(path: Path) -> dict[IPv4Address, IPv4Address]:
    with suppress(FileNotFoundError):
        rows: dict[str, str] = json.loads(path.read_text())
        return {IPv4Address(public): IPv4Address(private) for public, private in rows.items()}
    return {}


def serve(topology: Topology, *, vpc_interface: str, internet_interface: str) -> None:
    """Translate for ever."""
    sender = _raw_socket()
    path = topology.state_dir / TABLE_FILE
    selector = selectors.DefaultSelector()
    selector.register(_packet_socket(vpc_interface), selectors.EVENT_READ, data=True)
    selector.register(_packet_socket(internet_interface), selectors.EVENT_READ, data=False)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            listener: socket.socket = key.fileobj  # type: ignore[assignment]
            with suppress(OSError):  # an interface that is down for a moment, a host that can't be reached
                packet = listener.recv(65535)
                sent_on = translate(packet, from_vpc=key.data, table=_load(path), topology=topology)
                if sent_on is not None:
                    sender.sendto(sent_on, (socket.inet_ntoa(sent_on[16:20]), 0))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.region.icmp", description="ICMP errors across the router")
    parser.add_argument("--cell", required=True)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--vpc-interface", required=True)
    parser.add_argument("--internet-interface", required=True)
    options = parser.parse_args()
    topology = Topology(cell=options.cell, slot=options.slot)
    serve(topology, vpc_interface=options.vpc_interface, internet_interface=options.internet_interface)
    return 0


if __name__ == "__main__":
    sys.exit(main())
