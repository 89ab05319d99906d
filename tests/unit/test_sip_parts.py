"""The pure parts of the SIP stack: framing, back-off, session timers, descriptions, routes, what a registrar grants."""

from __future__ import annotations

import itertools

import pytest

from harness.clients.sip import session_timer
from harness.clients.sip.binding import accepted, granted_s, retry_after_s
from harness.clients.sip.dialog import way
from harness.clients.sip.framer import BIGGEST, PING, PONG, BadStream, Framer
from harness.clients.sip.message import Header, Message
from harness.clients.sip.reconnect import Backoff
from harness.clients.sip.sdp import Direction, answering, describe, directed, direction, numbered
from harness.clients.sip.session import glare_wait_s
from harness.clients.sip.session_timer import Accepted, Agreed, TooOften

ONE = b"OPTIONS sip:a SIP/2.0\r\nl : 3\r\n\r\nabc"
TWO = b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_comes_in_any_pieces(size: int) -> None:
    framer = Framer()
    stream = ONE + TWO + PING + ONE + PONG + TWO + b"\r\n"
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    frames = [frame for piece in pieces for frame in framer.feed(piece)]
    assert [frame for frame in frames if frame.strip()] == [ONE, TWO, ONE, TWO]
    if size == 1000:
        assert frames == [ONE, TWO, PING, ONE, PONG, TWO, PONG]


@pytest.mark.parametrize(
    "stream",
    [
        b"OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nl: -1\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nl: 1\r\nContent-Length: 2\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nl: 999999\r\n\r\n",
        b"x" * (BIGGEST + 1),
        b"x" * BIGGEST + b"\r\nl: 0\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nl: 9999999999999999999999999\r\n\r\n",
    ],
)
def test_a_stream_that_can_not_be_cut_is_given_up(stream: bytes) -> None:
    with pytest.raises(BadStream):
        list(Framer().feed(stream))


def test_a_peer_that_drips_is_read_in_linear_time() -> None:
    framer = Framer()
    fed = 0
    with pytest.raises(BadStream):
        for _ in itertools.repeat(None, BIGGEST + 10):
            list(framer.feed(b"x"))
            fed += 1
    assert fed == BIGGEST


@pytest.mark.parametrize(
    ("failures", "least_s", "most_s"),
    [(0, 0, 0.5), (1, 15, 30), (2, 30, 60), (6, 480, 960), (7, 900, 1800), (99, 900, 1800)],
)
def test_the_back_off_of_rfc_5626(failures: int, least_s: float, most_s: float) -> None:
    backoff = Backoff()
    assert backoff.wait_s(failures, lambda: 0.0) == least_s
    assert backoff.wait_s(failures, lambda: 1.0) == most_s


def asking(*headers: Header) -> Message:
    return Message(headers=headers, method="INVITE", uri="sip:a")


ABLE: Header = ("supported", "timer")


@pytest.mark.parametrize(
    ("request_", "own_s", "result"),
    [
        (asking(), None, Accepted()),
        (asking(ABLE), None, Accepted()),
        (asking(ABLE, ("session-expires", "60")), None, TooOften()),
        (asking(("session-expires", "60")), None, Agreed(interval_s=90, refresher="uas")),
        (asking(ABLE, ("session-expires", "1800")), None, Agreed(interval_s=1800, refresher="uac")),
        (asking(ABLE, ("session-expires", "1800;refresher=uas")), None, Agreed(interval_s=1800, refresher="uas")),
        (asking(("session-expires", "1800")), None, Agreed(interval_s=1800, refresher="uas")),
        (asking(ABLE), 600, Agreed(interval_s=600, refresher="uac")),
        (asking(), 600, Agreed(interval_s=600, refresher="uas")),
        (asking(ABLE, ("min-se", "900")), 600, Agreed(interval_s=900, refresher="uac")),
        (asking(ABLE, ("session-expires", "soon")), None, Accepted()),
    ],
)
def test_who_refreshes_a_session(request_: Message, own_s: int | None, result: Agreed | Accepted | TooOften) -> None:
    said = session_timer.answer(request_, own_s=own_s)
    if isinstance(result, Agreed):
        assert isinstance(said, Accepted)
        assert said.agreed == result
        assert ("Require", "timer") in said.headers or result.refresher == "uas"
        ok = Message(headers=tuple((name.lower(), value) for name, value in said.headers), code=200)
        assert session_timer.agreed(ok) == result
    else:
        assert said == result


def test_when_a_session_is_refreshed_and_given_up() -> None:
    assert Agreed(interval_s=90, refresher="uac").refresh_after_s() == 45
    assert Agreed(interval_s=90, refresher="uac").expire_after_s() == 60
    assert Agreed(interval_s=1800, refresher="uac").expire_after_s() == 1768


def test_a_422_names_its_interval() -> None:
    assert session_timer.min_se(Message(headers=(("min-se", "120;x"),), code=422)) == 120
    assert session_timer.min_se(Message(headers=(("min-se", "120"),), code=486)) is None
    assert session_timer.min_se(None) is None


SDP = describe(("198.18.0.1", 4000), session="s")


@pytest.mark.parametrize(
    ("own", "offer", "result"),
    [
        ("sendrecv", "sendrecv", "sendrecv"),
        ("sendrecv", "sendonly", "recvonly"),
        ("sendrecv", "recvonly", "sendonly"),
        ("sendrecv", "inactive", "inactive"),
        ("sendonly", "sendonly", "inactive"),
        ("sendonly", "sendrecv", "sendonly"),
        ("inactive", "sendrecv", "inactive"),
    ],
)
def test_the_direction_of_an_answer(own: Direction, offer: Direction, result: Direction) -> None:
    assert direction(answering(directed(SDP, own), directed(SDP, offer))) == result


def test_a_description_without_a_direction() -> None:
    bare = SDP.replace(b"a=sendrecv\r\n", b"")
    assert direction(bare) == "sendrecv"
    assert directed(bare, "inactive") == bare + b"a=inactive\r\n"
    assert directed(b"", "inactive") == b""


def test_a_description_gets_its_version() -> None:
    assert b"o=- 4000 7 IN IP4 198.18.0.1\r\n" in numbered(SDP, 7)
    assert numbered(b"nonsense", 7) == b"nonsense"


def test_routes_loose_and_strict() -> None:
    assert way("sip:t", ()) == ("sip:t", ())
    assert way("sip:t", ("<sip:p;lr>", "<sip:q>")) == ("sip:t", ("<sip:p;lr>", "<sip:q>"))
    assert way("sip:t", ("<sip:p;lr=on>",)) == ("sip:t", ("<sip:p;lr=on>",))
    assert way("sip:t", ("<sip:p;lrx>", "<sip:q;lr>")) == ("sip:p;lrx", ("<sip:q;lr>", "<sip:t>"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("contact", "<sip:other>;expires=5, <sip:me>;q=1;expires=60"), ("expires", "7")], 60),
        ([("contact", "<sip:me>"), ("expires", "7")], 7),
        ([("contact", "<sip:other>;expires=5")], 3600),
        ([("expires", "never")], 3600),
        ([("contact", "<sip:me>;expires=0")], 1),
    ],
)
def test_what_the_registrar_grants(headers: list[Header], seconds: int) -> None:
    assert granted_s(Message(headers=tuple(headers), code=200), "sip:me", 3600) == seconds


@pytest.mark.parametrize(
    ("contact", "bound"),
    [
        ("<sip:me@a:1>;expires=60", {"expires_s": 60, "contact": "sip:me@a:1"}),
        ("<sip:me@nat:9>;expires=60", {"expires_s": 3600}),  # rewritten
        (None, {"expires_s": 3600}),
    ],
)
def test_what_the_registrar_acknowledges(contact: str | None, bound: dict[str, object]) -> None:
    headers = (("contact", contact),) if contact else ()
    assert accepted(Message(headers=headers, code=200), "sip:me@a:1", 3600) == bound


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5), ("18000;duration=3600", 3600), ("120 (I'm in a meeting)", 120), ("soon", 0), (None, 0)],
)
def test_how_long_a_refusal_asks_to_wait(value: str | None, seconds: float) -> None:
    headers = (("retry-after", value),) if value is not None else ()
    assert retry_after_s(Message(headers=headers, code=503)) == seconds


def test_after_a_491_the_one_who_called_waits_longer() -> None:
    assert (glare_wait_s("caller", lambda: 0.0), glare_wait_s("caller", lambda: 1.0)) == (2.1, 4.0)
    assert (glare_wait_s("callee", lambda: 0.0), glare_wait_s("callee", lambda: 1.0)) == (0.0, 2.0)
