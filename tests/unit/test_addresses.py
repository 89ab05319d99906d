"""The address table as text for nft, and ICMP errors byte by byte."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest

from harness.region.addresses import parse_map, ruleset, transaction
from harness.region.icmp import checksum, translate
from harness.topology import Topology

TOPOLOGY = Topology(cell="t", slot=2)
A, B = TOPOLOGY.node_address(1), TOPOLOGY.node_address(2)
CLIENT = TOPOLOGY.client_address(1)
PUBLIC, OTHER = list(TOPOLOGY.elastic_range.hosts())[:2]
TABLE = {PUBLIC: A, OTHER: B}
UNREACHABLE, ECHO, REDIRECT = 3, 8, 5
UDP, TCP = 17, 6


def header(source: IPv4Address, target: IPv4Address, payload: bytes, *, protocol: int, ttl: int = 64) -> bytes:
    made = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, ttl, protocol, 0) + source.packed + target.packed
    return made[:10] + struct.pack("!H", checksum(made)) + made[12:] + payload


def pseudo(source: IPv4Address, target: IPv4Address, payload: bytes, protocol: int) -> bytes:
    return source.packed + target.packed + struct.pack("!BBH", 0, protocol, len(payload))


def datagram(source: IPv4Address, target: IPv4Address, *, with_checksum: bool = True) -> bytes:
    bare = struct.pack("!HHHH", 5060, 5061, 12, 0) + b"ping"
    value = checksum(pseudo(source, target, bare, UDP) + bare) if with_checksum else 0
    return header(source, target, bare[:6] + struct.pack("!H", value) + bare[8:], protocol=UDP)


def segment(source: IPv4Address, target: IPv4Address) -> bytes:
    bare = struct.pack("!HHIIBBHHH", 5060, 5061, 1, 2, 0x50, 2, 100, 0, 0)
    value = checksum(pseudo(source, target, bare, TCP) + bare)
    return header(source, target, bare[:16] + struct.pack("!H", value) + bare[18:], protocol=TCP)


def icmp_error(source: IPv4Address, target: IPv4Address, quote: bytes, *, kind: int = UNREACHABLE) -> bytes:
    message = struct.pack("!BBHI", kind, 3, 0, 0) + quote
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return header(source, target, message, protocol=1)


def aged(packet: bytes) -> bytes:
    """The packet after one hop."""
    older = packet[:8] + bytes([packet[8] - 1]) + packet[9:10] + b"\0\0" + packet[12:]
    return older[:10] + struct.pack("!H", checksum(older[:20])) + older[12:]


@pytest.mark.parametrize("quoting", [datagram, segment])
@pytest.mark.parametrize(
    ("from_vpc", "arrives", "leaves", "quoted", "quoted_after"),
    [
        pytest.param(True, (A, CLIENT), (PUBLIC, CLIENT), (CLIENT, A), (CLIENT, PUBLIC), id="node to client"),
        pytest.param(False, (CLIENT, PUBLIC), (CLIENT, A), (PUBLIC, CLIENT), (A, CLIENT), id="client to node"),
        pytest.param(True, (B, PUBLIC), (OTHER, A), (PUBLIC, B), (A, OTHER), id="node to node"),
        pytest.param(True, (A, PUBLIC), (PUBLIC, A), (PUBLIC, A), (A, PUBLIC), id="node to itself"),
    ],
)
def test_an_error_looks_as_if_the_other_side_had_been_addressed_directly(
    from_vpc: bool, arrives: object, leaves: object, quoted: object, quoted_after: object, quoting: object
) -> None:
    """Checksums included, those of the quoted packet too: the expectation is built, not patched."""
    packet = icmp_error(*arrives, quoting(*quoted))  # type: ignore[misc, operator]
    wanted = aged(icmp_error(*leaves, quoting(*quoted_after)))  # type: ignore[misc, operator]
    assert translate(packet, from_vpc=from_vpc, table=TABLE, topology=TOPOLOGY) == wanted


def test_an_absent_checksum_stays_absent() -> None:
    packet = icmp_error(A, CLIENT, datagram(CLIENT, A, with_checksum=False))
    wanted = aged(icmp_error(PUBLIC, CLIENT, datagram(CLIENT, PUBLIC, with_checksum=False)))
    assert translate(packet, from_vpc=True, table=TABLE, topology=TOPOLOGY) == wanted


def test_a_quote_of_eight_bytes_is_enough() -> None:
    packet = icmp_error(A, CLIENT, datagram(CLIENT, A)[:28])
    wanted = aged(icmp_error(PUBLIC, CLIENT, datagram(CLIENT, PUBLIC)[:28]))
    assert translate(packet, from_vpc=True, table=TABLE, topology=TOPOLOGY) == wanted


@pytest.mark.parametrize(
    ("from_vpc", "packet"),
    [
        pytest.param(True, icmp_error(A, CLIENT, datagram(CLIENT, A), kind=ECHO), id="not an error"),
        pytest.param(True, icmp_error(A, CLIENT, datagram(CLIENT, A), kind=REDIRECT), id="a redirect"),
        pytest.param(True, icmp_error(TOPOLOGY.node_address(3), CLIENT, datagram(CLIENT, A)), id="no mapping"),
        pytest.param(False, icmp_error(CLIENT, A, datagram(A, CLIENT)), id="to a private address"),
        pytest.param(False, icmp_error(A, PUBLIC, datagram(PUBLIC, CLIENT)), id="from a forged address"),
        pytest.param(True, icmp_error(A, CLIENT, b"\x45\0"), id="no quote"),
        pytest.param(True, b"\x45", id="no header"),
    ],
)
def test_what_must_not_pass_does_not(from_vpc: bool, packet: bytes) -> None:
    assert translate(packet, from_vpc=from_vpc, table=TABLE, topology=TOPOLOGY) is None


def test_an_error_at_its_last_hop_ends() -> None:
    packet = icmp_error(A, CLIENT, datagram(CLIENT, A))
    dying = packet[:8] + b"\x01" + packet[9:]
    assert translate(dying, from_vpc=True, table=TABLE, topology=TOPOLOGY) is None


def test_a_transaction_replaces_the_whole_table() -> None:
    lines = transaction({PUBLIC: A}).splitlines()
    assert lines[:2] == ["flush map ip pbx_chaos to_private", "flush map ip pbx_chaos to_public"]
    assert lines[2:] == [
        "add element ip pbx_chaos to_private { 203.0.113.33 : 198.18.4.11 }",
        "add element ip pbx_chaos to_public { 198.18.4.11 : 203.0.113.33 }",
    ]


def test_rules_name_the_interfaces_and_networks_of_the_cell() -> None:
    rules = ruleset(TOPOLOGY, vpc_interface="eth7", internet_interface="eth9")
    assert 'iifname "eth7" goto from_vpc' in rules and 'iifname "eth9" goto from_internet' in rules
    assert rules.count("policy drop") == 3


def test_the_kernels_table_is_read() -> None:
    document = {"nftables": [{"metainfo": {}}, {"map": {"elem": [[str(PUBLIC), str(A)]]}}]}
    assert parse_map(document) == {PUBLIC: A}
    assert parse_map({"nftables": [{"map": {}}]}) == {}
