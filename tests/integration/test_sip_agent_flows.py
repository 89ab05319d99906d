"""Flows to peers that misbehave, over real sockets on loopback: whatever the other side does, a flow tells in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness.clients.sip import binding as bindings
from harness.clients.sip.agent import Account, Behaviour, Event, UserAgent
from harness.clients.sip.binding import make_flow
from harness.clients.sip.flow import Flow, FlowFailed, Inbox
from harness.clients.sip.framer import BIGGEST
from harness.clients.sip.message import Message, response
from harness.clients.sip.reconnect import Backoff
from harness.results import TransportName
from tests.registrar import DOMAIN, HOST, PASSWORD, Registrar, certificate, free_port

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(serve: Serve, *, tls: bool = False) -> Any:
    """A server that does as it likes; its port."""
    server = await asyncio.start_server(serve, HOST, 0, ssl=certificate() if tls else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Told:
    """What a flow handed on."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.downs: list[str] = []
        self.inbox = Inbox(
            lambda message, at_ns: self.messages.append(message), lambda why, at_ns: self.downs.append(why)
        )

    def flow(self, transport: TransportName, port: int) -> Flow:
        return make_flow(transport, to=(HOST, port), local_ip=HOST, inbox=self.inbox)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.005)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await asyncio.sleep(5)
    finally:
        writer.transport.abort()


def saying(data: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(data)
        await writer.drain()
        await reader.read()
        writer.close()

    return serve


@pytest.mark.parametrize("transport", ["tcp", "tls", "wss"])
def test_nobody_there(transport: TransportName) -> None:
    async def story() -> None:
        with pytest.raises(FlowFailed, match="ECONNREFUSED"):
            await Told().flow(transport, free_port()).open(timeout_s=5)

    asyncio.run(story())


@pytest.mark.parametrize(("transport", "tls"), [("tls", False), ("wss", False), ("wss", True)])
def test_a_peer_that_says_nothing_is_not_waited_for(transport: TransportName, tls: bool) -> None:
    async def story() -> None:
        async with peer(silent, tls=tls) as port:
            flow = Told().flow(transport, port)
            with pytest.raises(FlowFailed, match="no "):
                await flow.open(timeout_s=0.1)
            assert not flow.up
            assert flow.send(b"x").error

    asyncio.run(story())


@pytest.mark.parametrize(
    ("transport", "tls", "answer"),
    [
        ("tls", False, b"this is no TLS\r\n"),
        ("wss", True, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ("wss", True, b"\0\0\0 nothing known \r\n\r\n"),
        ("wss", True, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    ],
)
def test_a_peer_of_another_kind_is_refused(transport: TransportName, tls: bool, answer: bytes) -> None:
    async def story() -> None:
        async with peer(saying(answer), tls=tls) as port:
            with pytest.raises(FlowFailed):
                await Told().flow(transport, port).open(timeout_s=5)

    asyncio.run(story())


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "Content-Length"),
        (b"x" * (BIGGEST + 5), "headers of more"),
        (b"SIP/2.0 200 OK\r\nl: 70000\r\n\r\n", "message of more"),
    ],
)
def test_a_stream_of_something_else_ends_the_flow(data: bytes, why: str, tls: bool) -> None:
    async def story() -> None:
        told = Told()
        async with peer(saying(data), tls=tls) as port:
            flow = told.flow("tls" if tls else "tcp", port)
            await flow.open(timeout_s=5)
            flow.send(b"something.")
            await until(lambda: bool(told.downs))
        assert why in told.downs[0]
        assert (len(told.downs), told.inbox.bad, flow.up) == (1, 1, False)

    asyncio.run(story())


def test_a_peer_that_does_not_read_is_given_up_and_never_blocks() -> None:
    async def story() -> None:
        told = Told()
        async with peer(silent) as port:
            flow = told.flow("tcp", port)
            await flow.open(timeout_s=5)
            sends = [flow.send(b"x" * 60000) for _ in range(500)]
            assert "the PBX does not read" in [sent.error for sent in sends]
            assert told.downs == ["the PBX does not read"]
            assert not flow.up

    asyncio.run(story())


def test_a_peer_that_drips_and_one_that_floods() -> None:
    answer = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:a>\r\n"
    answer += b"Call-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in range(len(answer)):
            writer.write(answer[at : at + 1])
            await asyncio.sleep(0)
        writer.write(answer * 2000)
        await writer.drain()
        writer.close()

    async def story() -> None:
        for tls in (False, True):
            told = Told()
            async with peer(drip, tls=tls) as port:
                await told.flow("tls" if tls else "tcp", port).open(timeout_s=5)
                await until(lambda told=told: bool(told.downs))  # type: ignore[misc]
            assert len(told.messages) == 2001
            assert told.downs == ["closed by the PBX"]

    asyncio.run(story())


@pytest.mark.parametrize("transport", ["tcp", "wss"])
def test_a_flow_without_a_pong_is_given_up(transport: TransportName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "PONG_S", 0.3)

    async def story() -> None:
        registrar = Registrar()
        await registrar.start(transport)
        events: list[Event] = []
        agent = UserAgent(
            account=Account(user="1000", password=PASSWORD, domain=DOMAIN),
            to=(HOST, registrar.ports[transport]),
            local_ip=HOST,
            behaviour=Behaviour(
                transport=transport, keepalive_s=0.1, backoff=Backoff(base_s=0.01, max_s=0.01, first_s=0.0)
            ),
            on_event=events.append,
        )
        await agent.start()
        flow = agent.exchange.flow
        assert flow is not None
        await until(lambda: flow.pongs > 1)
        assert [event.kind for event in events] == ["flow_up", "registered"]
        monkeypatch.setattr(type(flow), "ping", lambda self: True)  # it never arrives
        await until(lambda: len(events) >= 5)
        assert [event.kind for event in events[2:5]] == ["flow_down", "flow_up", "registered"]
        assert events[2].detail["reason"] == "no pong"
        await agent.stop()
        await registrar.stop()

    asyncio.run(story())


def test_a_udp_phone_that_asks_notices_a_dead_pbx() -> None:
    async def story() -> None:
        registrar = Registrar()
        await registrar.start("udp")
        events: list[Event] = []
        agent = UserAgent(
            account=Account(user="1000", password=PASSWORD, domain=DOMAIN),
            to=(HOST, registrar.ports["udp"]),
            local_ip=HOST,
            behaviour=Behaviour(
                transport="udp",
                keepalive="options",
                keepalive_s=0.05,
                timer_t1_s=0.002,
                backoff=Backoff(base_s=0.01, max_s=0.01, first_s=0.0),
            ),
            on_event=events.append,
        )
        await agent.start()
        registrar.lose = lambda message: True
        await until(lambda: events[-1].kind == "register_failed")
        assert not agent.registered
        registrar.lose = lambda message: False
        await until(lambda: events[-1].kind == "registered")
        assert agent.registered
        await agent.stop()
        await registrar.stop()

    asyncio.run(story())


def test_what_the_receiver_breaks_does_not_reach_the_read_loop() -> None:
    async def story() -> None:
        broken: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context["exception"]))

        def on_message(message: Message, at_ns: int) -> None:
            raise LookupError("a defect of ours")

        inbox = Inbox(on_message, lambda why, at_ns: None)
        asked = Message(
            headers=(
                ("via", "SIP/2.0/TCP a"),
                ("from", "<sip:a>"),
                ("to", "<sip:a>"),
                ("call-id", "1"),
                ("cseq", "1 BYE"),
            ),
            method="BYE",
            uri="sip:a",
        )
        inbox.take(response(asked, 200, "OK", to_tag="t"), 0)
        assert (inbox.broken, inbox.bad, len(broken)) == (1, 0, 1)

    asyncio.run(story())
