"""baresip's configuration and what it prints and sends; baresip itself is in tests/integration/test_softphone.py."""

from __future__ import annotations

import pytest

from harness.clients.softphone.baresip import Account, Netstrings, config, netstring
from harness.clients.softphone.tap import udp_ports
from harness.clients.softphone.trace import Trace

REQUEST = (
    "INVITE sip:1002@198.18.16.19:5070 SIP/2.0\r\nVia: SIP/2.0/TLS 203.0.113.1:5061;branch=z9hG4bK1\r\n"
    "From: <sip:1001@pbx.test>;tag=a\r\nTo: <sip:1002@pbx.test>;tag=b\r\nCall-ID: c\r\nCSeq: 2 INVITE\r\n"
    "Max-Forwards: 70\r\nContent-Length: 4\r\n\r\nv=0\r\n"
)


ANSWER = (
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 198.18.16.19:5070;branch=z9hG4bK2\r\nFrom: <sip:1001@pbx.test>;tag=a\r\n"
    "To: <sip:1002@pbx.test>;tag=b\r\nCall-ID: c\r\nCSeq: 3 BYE\r\nContent-Length: 0\r\n\r\n"
)


def printed(head: str, message: str = REQUEST) -> bytes:
    return f"ua: something\n\x1b[36;1m#\n{head}\n{message}\x1b[;m\nother talk\n".encode()


def test_a_message_without_a_body_is_whole() -> None:
    (traced,) = Trace("198.18.16.19").feed(printed("TCP 203.0.113.1:5063 -> 198.18.16.19:5070", ANSWER))
    assert (traced.sent, traced.message.code, traced.message.cseq) == (False, 200, (3, "BYE"))


def test_a_printed_message_is_found_in_any_pieces() -> None:
    output = printed("TLS 203.0.113.1:5061 -> 198.18.16.19:38112") * 2
    for size in (1, 7, 64, len(output)):
        trace = Trace("198.18.16.19")
        found = [t for at in range(0, len(output), size) for t in trace.feed(output[at : at + size])]
        assert [(t.sent, t.message.method, t.message.to_tag) for t in found] == [(False, "INVITE", "b")] * 2


def test_who_sent_a_message_is_told_by_the_address_on_the_left() -> None:
    trace = Trace("198.18.16.19")
    assert [t.sent for t in trace.feed(printed("UDP 198.18.16.19:5070 -> 203.0.113.1:5060"))] == [True]
    assert [t.sent for t in trace.feed(printed("UDP 198.18.16.191:5070 -> 203.0.113.1:5060"))] == [False]


@pytest.mark.parametrize("garbage", [b"\xff\xfe\n" * 100, b"UDP a -> b\nnonsense\n\x1b[;m\n", b"x" * 100_000])
def test_what_is_no_message_is_passed_over(garbage: bytes) -> None:
    trace = Trace("198.18.16.19")
    assert list(trace.feed(garbage + b"\n")) == []
    assert len(list(trace.feed(printed("TCP 203.0.113.1:5063 -> 198.18.16.19:4")))) == 1


def test_netstrings_come_out_as_they_went_in() -> None:
    texts = [b"", b'{"a": ":,"}', b"x" * 5000]
    stream = b"".join(netstring(text) for text in texts)
    for size in (1, 3, len(stream)):
        netstrings = Netstrings()
        assert [t for at in range(0, len(stream), size) for t in netstrings.feed(stream[at : at + size])] == texts


@pytest.mark.parametrize("stream", [b"hello:,", b"3:abcd", b"99999999999", b"9999999:x"])
def test_what_is_no_netstring_is_refused(stream: bytes) -> None:
    with pytest.raises(ValueError, match="not a netstring"):
        Netstrings().feed(stream)


def test_the_password_is_in_the_accounts_file_only() -> None:
    account = Account(user="1003", password="s3cret", domain="pbx.test", transport="tls", to=("203.0.113.1", 5061))
    assert "auth_pass=s3cret;" in account.line()
    assert 'outbound="sip:203.0.113.1:5061;transport=tls"' in account.line()
    assert "s3cret" not in repr(config(local_ip="198.18.16.19", tone_hz=500, ports=range(32000, 32008), control=4444))
    assert "s3cret" not in repr(account)


def test_the_configuration_names_the_ports_and_the_tone() -> None:
    text = config(local_ip="198.18.16.19", tone_hz=500, ports=range(32000, 32008), control=4445)
    for line in ("rtp_ports 32000-32007", "audio_source ausine,500", "ctrl_tcp_listen 127.0.0.1:4445"):
        assert line in text.splitlines()


@pytest.mark.parametrize(
    ("source", "target", "passes"),
    [(5060, 32000, True), (5060, 32007, True), (32003, 40000, True), (5060, 31999, False), (5060, 32008, False)],
)
@pytest.mark.parametrize("options", [0, 8])
def test_the_filter_passes_the_ports_and_nothing_else(source: int, target: int, passes: bool, options: int) -> None:
    packet = ip(17, options=options) + source.to_bytes(2, "big") + target.to_bytes(2, "big") + bytes(4)
    assert bool(run(packet)) is passes


def test_the_filter_passes_neither_tcp_nor_later_fragments_nor_other_protocols() -> None:
    ports = (5060).to_bytes(2, "big") + (32000).to_bytes(2, "big") + bytes(4)
    assert run(ip(17) + ports)
    assert not run(ip(17) + ports, protocol=0x0806)
    assert not run(ip(6) + ports)
    assert not run(ip(17, fragment=100) + ports)


def ip(protocol: int, *, options: int = 0, fragment: int = 0) -> bytes:
    head = bytearray(20 + options)
    head[0], head[9] = 0x40 | len(head) // 4, protocol
    head[6:8] = fragment.to_bytes(2, "big")
    return bytes(head)


def run(packet: bytes, *, protocol: int = 0x0800) -> int:
    """A classic BPF machine that knows the instructions of `udp_ports`."""
    program, at, value, index = udp_ports(32000, 32007), 0, 0, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x30:
            value = packet[k]
        elif code == 0x28 and k == 0xFFFFF000:
            value = protocol
        elif code in (0x28, 0x48):
            start = k + (index if code == 0x48 else 0)
            value = int.from_bytes(packet[start : start + 2], "big")
        elif code == 0xB1:
            index = 4 * (packet[k] & 0x0F)
        else:
            true = {0x15: value == k, 0x45: bool(value & k), 0x35: value >= k, 0x25: value > k}[code]
            at += yes if true else no
