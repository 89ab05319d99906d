"""SIP messages: what is read out of them, what is refused, and that nothing a network sends breaks the reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clients.sip.message import BadMessage, parse, request, response, split_list, tag_of, uri_of

INVITE = (
    b"INVITE sip:1999@pbx.test SIP/2.0\r\n"
    b"v: SIP/2.0/UDP 198.18.1.11:5070;branch=z9hG4bK1, SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK0\r\n"
    b"Record-Route: <sip:203.0.113.1;lr;ftag=a,b>,\r\n <sip:203.0.113.2;lr>\r\n"
    b'f: "Doe; \\"J\\" <x>, tag=no" <sip:1998@pbx.test;x=1>;tag=abc\r\n'
    b"t: sip:1999@pbx.test\r\n"
    b"i: 1@here\r\n"
    b"CSeq: 7 INVITE\r\n"
    b"l: 4\r\n"
    b"\r\n"
    b"v=0\nrest"
)


def test_a_request_with_compact_folded_and_listed_headers() -> None:
    message = parse(INVITE)
    assert (message.method, message.uri, message.is_response) == ("INVITE", "sip:1999@pbx.test", False)
    assert message.branch == "z9hG4bK1"
    assert len(message.all("via")) == 2
    assert message.all("record-route") == ["<sip:203.0.113.1;lr;ftag=a,b>", "<sip:203.0.113.2;lr>"]
    assert (message.from_tag, message.to_tag) == ("abc", "")
    assert message.cseq == (7, "INVITE")
    assert message.body == b"v=0\n"


def test_a_response_copies_what_it_answers_and_adds_a_tag() -> None:
    answer = parse(response(parse(INVITE), 200, "OK", to_tag="t1", headers=[("Contact", "<sip:a@b>")], body=b"x"))
    assert (answer.code, answer.reason, answer.body) == (200, "OK", b"x")
    assert answer.branch == "z9hG4bK1"
    assert answer.all("record-route") == ["<sip:203.0.113.1;lr;ftag=a,b>", "<sip:203.0.113.2;lr>"]
    assert (answer.from_tag, answer.to_tag, answer.call_id, answer.cseq) == ("abc", "t1", "1@here", (7, "INVITE"))


def test_trying_has_no_tag() -> None:
    assert parse(response(parse(INVITE), 100, "Trying", to_tag="t1")).to_tag == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"INVITE sip:1999@pbx.test SIP/2.0", b"INVITE sip:1999@pbx.test HTTP/1.1"),
        (b"INVITE sip:1999@pbx.test SIP/2.0", b"SIP/2.0 999 What"),
        (b"CSeq: 7 INVITE", b"CSeq: seven INVITE"),
        (b"CSeq: 7 INVITE", b"CSeq: 7 BYE"),
        (b"CSeq: 7 INVITE\r\n", b""),
        (b"i: 1@here\r\n", b""),
        (b"l: 4", b"l: 400"),
        (b"l: 4", b"l: -4"),
        (b"i: 1@here", b"i 1@here"),
        (b"i: 1@here", b"i: \xff\xfe"),
        (b"\r\n\r\n", b"\r\n"),
    ],
)
def test_what_says_nothing_certain_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(BadMessage):
        parse(INVITE.replace(old, new))


@given(st.binary(max_size=300))
def test_noise_is_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(BadMessage):
        parse(data)


@given(st.integers(0, len(INVITE) - 1), st.binary(min_size=1, max_size=4))
def test_a_damaged_message_parses_or_is_refused(at: int, damage: bytes) -> None:
    try:
        message = parse(INVITE[:at] + damage + INVITE[at + len(damage) :])
    except BadMessage:
        return
    assert message.cseq[1]
    assert isinstance(message.branch + message.from_tag + message.to_tag + message.call_id, str)


def test_a_line_break_in_a_header_never_gets_out() -> None:
    with pytest.raises(ValueError, match="line break"):
        request("OPTIONS", "sip:a", [("Subject", "x\r\nEvil: 1")])


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("a, b", ["a", "b"]),
        ('"x, y" <sip:a,b@c>;q=1, <sip:d>', ['"x, y" <sip:a,b@c>;q=1', "<sip:d>"]),
        ('"\\", z" <sip:a>, b', ['"\\", z" <sip:a>', "b"]),
        (" , ", []),
    ],
)
def test_lists_split_at_their_own_commas(value: str, parts: list[str]) -> None:
    assert split_list(value) == parts


@pytest.mark.parametrize(
    ("value", "uri", "tag"),
    [
        ("<sip:a@b;transport=tcp>;tag=1", "sip:a@b;transport=tcp", "1"),
        ("sip:a@b;tag=2", "sip:a@b", "2"),
        ('"<no>;tag=0" <sip:a@b>', "sip:a@b", ""),
        ("<sip:a@b;tag=inside>", "sip:a@b;tag=inside", ""),
        ("<sip:a@b> ; x=1 ; tag = 3", "sip:a@b", "3"),
    ],
)
def test_address_and_tag(value: str, uri: str, tag: str) -> None:
    assert (uri_of(value), tag_of(value)) == (uri, tag)
