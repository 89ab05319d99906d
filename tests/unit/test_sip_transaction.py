"""Transactions on virtual time: every timer of RFC 3261 table 4, over UDP and over a stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.clients.sip.layer import MOST_SERVED, Layer
from harness.clients.sip.message import Message, parse, request, response
from harness.clients.sip.transaction import ClientTransaction, ServerTransaction
from tests.unit.virtual_time import VirtualTime


def a_request(method: str = "OPTIONS", *, branch: str = "z9hG4bK1", sent_by: str = "a", to_tag: str = "") -> Message:
    to = f"<sip:b@x>;tag={to_tag}" if to_tag else "<sip:b@x>"
    headers = [("Via", f"SIP/2.0/UDP {sent_by};branch={branch}"), ("From", "<sip:a@x>;tag=1"), ("To", to)]
    return parse(request(method, "sip:b@x", [*headers, ("Call-ID", "c"), ("CSeq", f"1 {method}")]))


def an_answer(code: int, method: str = "OPTIONS", *, branch: str = "z9hG4bK1") -> Message:
    return parse(response(a_request(method, branch=branch), code, "", to_tag="t"))


class Client:
    """A client transaction, when it sent what, and how it ended."""

    def __init__(self, method: str, *, reliable: bool = False) -> None:
        self.time = VirtualTime()
        self.sent: list[tuple[float, bytes]] = []
        self.ends: list[int | None] = []
        self.gone_s: float | None = None
        self.transaction = ClientTransaction(
            request=b"request",
            method=method,
            reliable=reliable,
            timers=self.time,
            write=lambda data: self.sent.append((self.time.now_s, data)),
            ended=lambda message, at_ns: self.ends.append(message.code if message else None),
            ack=lambda message: b"ack",
            gone=self._gone,
        )
        self.transaction.start()

    def _gone(self) -> None:
        self.gone_s = self.time.now_s

    def times(self, data: bytes = b"request") -> list[float]:
        return [at_s for at_s, what in self.sent if what == data]

    def answer(self, code: int) -> None:
        self.transaction.answered(an_answer(code, self.transaction.method), 7)


def test_timers_a_and_b_an_invite_doubles_and_gives_up() -> None:
    client = Client("INVITE")
    client.time.pass_s(100)
    assert client.times() == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert client.ends == [None]
    assert client.gone_s == 32
    assert client.time.pending == 0


def test_timers_e_and_f_another_request_slows_down_to_t2() -> None:
    client = Client("OPTIONS")
    client.time.pass_s(100)
    assert client.times() == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert (client.ends, client.gone_s) == ([None], 32)


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_a_stream_repeats_nothing_and_gives_up_just_as_late(method: str) -> None:
    client = Client(method, reliable=True)
    client.time.pass_s(100)
    assert (client.times(), client.ends, client.gone_s) == ([0], [None], 32)


def test_a_provisional_answer_stops_timers_a_and_b_until_timer_c() -> None:
    client = Client("INVITE")
    client.time.pass_s(1)
    client.answer(100)
    client.time.pass_s(100)
    client.answer(180)
    client.time.pass_s(179)
    assert (client.times(), client.ends) == ([0, 0.5], [])
    client.time.pass_s(1)
    assert client.ends == [None]


def test_a_provisional_answer_slows_another_request_down_at_once() -> None:
    client = Client("OPTIONS")
    client.answer(100)
    client.time.pass_s(10)
    assert client.times() == [0, 0.5, 4.5, 8.5]


def test_timer_d_a_refusal_is_acknowledged_each_time() -> None:
    client = Client("INVITE")
    client.time.pass_s(1)
    client.answer(486)
    client.answer(486)
    assert (client.ends, len(client.times(b"ack"))) == ([486], 2)
    client.time.pass_s(31.9)
    assert client.gone_s is None
    client.time.pass_s(0.2)
    assert client.gone_s == 33


def test_timer_k_and_streams() -> None:
    client = Client("OPTIONS")
    client.answer(200)
    client.answer(200)
    client.time.pass_s(10)
    assert (client.ends, client.gone_s) == ([200], 5)
    stream = Client("OPTIONS", reliable=True)
    stream.answer(200)
    assert stream.gone_s == 0


def test_a_2xx_of_an_invite_is_not_acknowledged_here() -> None:
    client = Client("INVITE")
    client.answer(200)
    assert (client.ends, client.times(b"ack"), client.time.pending) == ([200], [], 0)


class Server:
    def __init__(self, method: str, *, reliable: bool = False) -> None:
        self.time = VirtualTime()
        self.sent: list[float] = []
        self.unacknowledged = 0
        self.gone_s: float | None = None
        self.transaction = ServerTransaction(
            method=method,
            reliable=reliable,
            timers=self.time,
            write=lambda data: self.sent.append(self.time.now_s),
            unacknowledged=self._count,
            gone=self._gone,
        )

    def _count(self) -> None:
        self.unacknowledged += 1

    def _gone(self) -> None:
        self.gone_s = self.time.now_s


def test_timers_g_and_h_a_refusal_is_repeated_until_nobody_can_want_it() -> None:
    server = Server("INVITE")
    server.transaction.answer(b"486", code=486)
    server.time.pass_s(100)
    assert server.sent == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert (server.unacknowledged, server.time.pending) == (1, 0)


def test_timer_i_ends_it_after_the_ack() -> None:
    server = Server("INVITE")
    server.transaction.answer(b"486", code=486)
    server.time.pass_s(1)
    server.transaction.ack()
    server.transaction.repeated()
    server.time.pass_s(100)
    assert (server.sent, server.gone_s, server.unacknowledged) == ([0, 0.5], 6, 0)


@pytest.mark.parametrize("reliable", [False, True])
def test_a_2xx_is_repeated_until_its_ack_over_streams_too(reliable: bool) -> None:
    server = Server("INVITE", reliable=reliable)
    server.transaction.answer(b"200", code=200)
    server.time.pass_s(2)
    server.transaction.ack()
    server.time.pass_s(100)
    assert (server.sent, server.unacknowledged, server.gone_s) == ([0, 0.5, 1.5], 0, 34)


def test_a_refusal_over_a_stream_is_said_once() -> None:
    server = Server("INVITE", reliable=True)
    server.transaction.answer(b"486", code=486)
    server.time.pass_s(100)
    assert (server.sent, server.gone_s) == ([0], 32)


def test_timer_j_a_repeated_request_is_answered_again() -> None:
    server = Server("BYE")
    server.transaction.answer(b"200", code=200)
    server.time.pass_s(3)
    server.transaction.repeated()
    server.time.pass_s(100)
    assert (server.sent, server.gone_s) == ([0, 3], 32)


def test_only_the_first_final_answer_counts() -> None:
    server = Server("INVITE")
    server.transaction.answer(b"180", code=180)
    server.transaction.repeated()
    server.transaction.answer(b"487", code=487)
    server.transaction.answer(b"200", code=200)
    assert (server.transaction.last, len(server.sent)) == (b"487", 3)


def serve(layer: Layer, message: Message) -> ServerTransaction:
    transaction = ServerTransaction(method=message.method, reliable=True, timers=VirtualTime(), write=lambda data: None)
    layer.serve(message, transaction)
    return transaction


def test_a_request_is_known_by_branch_sender_and_method() -> None:
    layer = Layer()
    served = serve(layer, a_request("INVITE"))
    assert layer.find(a_request("INVITE")) is served
    assert layer.find(a_request("ACK")) is served
    assert layer.invited(a_request("CANCEL")) is served
    assert layer.find(a_request("CANCEL")) is None
    assert layer.find(a_request("INVITE", sent_by="other")) is None
    assert layer.find(a_request("INVITE", branch="z9hG4bK2")) is None


def test_a_branch_that_says_nothing_is_none() -> None:
    layer = Layer()
    served = serve(layer, a_request(branch="z9hG4bK"))
    assert layer.find(a_request(branch="z9hG4bK")) is served
    assert layer.find(a_request(branch="z9hG4bK", sent_by="other")) is None


@pytest.mark.parametrize(
    ("second", "merged"),
    [
        (lambda: a_request("INVITE", branch="z9hG4bK2"), True),
        (lambda: a_request("INVITE"), False),
        (lambda: a_request("INVITE", branch="z9hG4bK2", to_tag="t"), False),
    ],
)
def test_a_request_that_came_two_ways_is_merged(second: Callable[[], Message], merged: bool) -> None:
    layer = Layer()
    serve(layer, a_request("INVITE"))
    assert layer.merged(second()) is merged


def test_only_so_many_are_remembered() -> None:
    layer = Layer()
    for n in range(3 * MOST_SERVED):
        serve(layer, a_request(branch=f"z9hG4bK-{n}"))
    assert len(layer.served) == MOST_SERVED


def test_a_flow_that_is_gone_ends_every_request() -> None:
    client = Client("INVITE")
    layer = Layer()
    layer.ask("z9hG4bK9", client.transaction)
    layer.abandon()
    assert (client.ends, layer.asked) == ([None], {})
