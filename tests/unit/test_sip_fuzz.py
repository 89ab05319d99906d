"""10,000 mutated messages against a running user agent, over UDP and over a stream: it answers whoever makes sense
afterwards, nothing is raised out of its read loop, and what it keeps is bounded. The seed is fixed.

Each example is a batch, told to the agent over a real socket; then an OPTIONS has to be answered.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.clients.sip.agent import Account, Answer, Behaviour, Session, UserAgent
from harness.clients.sip.exchange import MOST_ACKS
from harness.clients.sip.framer import Framer
from harness.clients.sip.layer import MOST_SERVED
from harness.clients.sip.message import BadMessage, Message, parse, response
from harness.clients.sip.reconnect import Backoff
from harness.clients.sip.sdp import describe
from harness.clients.sip.serving import MOST_SESSIONS
from tests.torture import load

HOST = "127.0.0.1"
BATCH, EXAMPLES = 20, 250
"""Twice: 5,000 messages per transport."""

SDP = describe((HOST, 4000), session="fuzz")
SLICES = (b"", b"\0", b"\r\n", b"\r", b"\xff", b"9" * 30, b"9" * 5000, b'"', b"<", b">", b";", b",", b" ", b":", b"-1")
HEADERS = (
    b"Session-Expires: 1;refresher=uac",
    b"Session-Expires: 99999999999999999999",
    b"Min-SE: x",
    b"Require: a,b,,;",
    b"WWW-Authenticate: Digest realm=",
    b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"',
    b"Contact: *",
    b"Contact: <sip:evil@127.0.0.1>;expires=0000000001",
    b"Record-Route: <sip:strict@127.0.0.1>,<sip:a>",
    b"Content-Length: 3",
    b"Via: SIP/2.0/UDP a;received=::;rport=99999999",
    b"Refer-To: <sip:a>, <sip:b>",
    b"CSeq: 2147483647 INVITE",
)


def in_dialog(method: str, call: str, tag: str, cseq: int, extra: bytes = b"", body: bytes = SDP) -> bytes:
    to = f"<sip:1000@x>;tag={tag}" if tag else "<sip:1000@x>"
    head = (
        f"{method} sip:1000@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP p;branch=z9hG4bK{method}{call}{cseq}\r\n"
        f"From: <sip:f@x>;tag=f\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n"
        "Contact: <sip:f@127.0.0.1:9>\r\nContent-Type: application/sdp\r\n"
    )
    return head.encode() + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


TEMPLATES = [
    *(torture.data for torture in load() if torture.verdict != "400"),
    *(in_dialog(m, "one", "TAG", 7) for m in ("INVITE", "ACK", "BYE", "UPDATE", "REFER", "NOTIFY", "INFO", "CANCEL")),
    in_dialog("REFER", "one", "TAG", 8, b"Refer-To: <sip:1001@x>\r\n"),
    *(in_dialog("INVITE", "new", "", 1) for _ in range(5)),
    *(in_dialog("INVITE", "one", "TAG", 9) for _ in range(5)),
    in_dialog("CANCEL", "new", "", 1),
    in_dialog("INVITE", "timed", "", 1, b"Session-Expires: 90\r\nSupported: timer\r\n"),
]

KINDS = ("header", "header", "header", "put", "put", "drop", "twice", "swap", "cut")
mutation = st.tuples(
    st.sampled_from(KINDS),
    st.integers(0, 1 << 16),
    st.integers(0, 1 << 16),
    st.sampled_from(SLICES),
)
templates = st.integers(0, len(TEMPLATES) - 1)
mutations = st.lists(mutation, max_size=2)
batches = st.lists(
    st.tuples(templates, mutations),
    min_size=BATCH,
    max_size=BATCH,
)


def mutated(index: int, changes: list[tuple[str, int, int, bytes]], tag: str, n: int) -> bytes:
    """A template with a dialog that may exist and a branch of its own, damaged in places."""
    data = TEMPLATES[index].replace(b"tag=TAG", b"tag=" + tag.encode())
    data = data.replace(b"branch=z9hG4bK", b"branch=z9hG4bK%d" % n).replace(b"Call-ID: new", b"Call-ID: new%d" % n)
    for what, first, second, piece in changes:
        at, to = sorted((first % (len(data) + 1), second % (len(data) + 1)))
        if what == "cut":
            data = data[:at]
        elif what == "put":
            data = data[:at] + piece + data[at + len(piece) % 7 :]
        elif what == "drop":
            data = data[:at] + data[min(to, at + 40) :]
        elif what == "twice":
            data = data[:to] + data[at:to] + data[to:]
        elif what == "header":
            lines = data.split(b"\r\n")
            lines.insert(1 + first % len(lines), HEADERS[second % len(HEADERS)])
            data = b"\r\n".join(lines)
        else:
            lines = data.split(b"\r\n")
            a, b = first % len(lines), second % len(lines)
            lines[a], lines[b] = lines[b], lines[a]
            data = b"\r\n".join(lines)
    return data[:60000]


class Peer:
    """The PBX: takes the registration, then sends what it is told and waits for the answer to an OPTIONS."""

    def __init__(self, agent: UserAgent) -> None:
        self.agent = agent
        self.n = itertools.count()
        self.answers: asyncio.Queue[Message] = asyncio.Queue()

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    async def ready(self) -> None:
        """Until there is a way to the agent."""

    def take(self, data: bytes) -> None:
        try:
            message = parse(data)
        except BadMessage:  # a 400 echoes what was wrong
            return
        if message.method == "REGISTER":
            self.send(response(message, 200, "OK", to_tag="r", headers=[("Contact", message.get("contact") or "")]))
        elif message.code and message.call_id.startswith("alive"):
            self.answers.put_nowait(message)

    async def attack(self, batch: list[bytes]) -> None:
        for data in batch:
            await self.ready()
            self.send(data)
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while not await self._alive():
                self.hang_up()  # what was asked was taken for the end of something unfinished

    async def _alive(self) -> bool:
        await self.ready()
        call = f"alive{next(self.n)}"
        self.send(in_dialog("OPTIONS", call, "", 1, body=b""))
        try:
            async with asyncio.timeout(0.02):
                while (await self.answers.get()).call_id != call:
                    pass
        except TimeoutError:
            return False
        return True

    def hang_up(self) -> None:
        """Begin a new stream, where there are streams."""


class UdpPeer(Peer):
    def __init__(self, agent: UserAgent, sock: socket.socket) -> None:
        super().__init__(agent)
        self._socket = sock
        agent.exchange.loop.add_reader(sock, self._read)

    def send(self, data: bytes) -> None:
        self._socket.sendto(data, self.agent.exchange.local)

    def _read(self) -> None:
        data, source = self._socket.recvfrom(65536)
        if source == self.agent.exchange.local:
            self.take(data)


class TcpPeer(Peer):
    """A connection that is given up is waited for anew."""

    writer: asyncio.StreamWriter | None = None

    def send(self, data: bytes) -> None:
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(data)

    def hang_up(self) -> None:
        if self.writer is not None:
            self.writer.close()

    async def ready(self) -> None:
        while self.writer is None or self.writer.is_closing() or not self.agent.registered:
            await asyncio.sleep(0.001)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        framer = Framer()
        try:
            while data := await reader.read(65536):
                for frame in framer.feed(data):
                    if frame.strip():
                        self.take(frame)
        except OSError:
            pass
        finally:
            writer.close()


class Attack:
    """An agent on a loop of its own that lives as long as all examples."""

    def __init__(self, transport: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.broken: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.broken.append(context))
        self.transport = transport
        self.peer: Any = None
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        def agent(port: int) -> UserAgent:
            return UserAgent(
                account=Account(user="1000", password="p", domain="x"),
                to=(HOST, port),
                local_ip=HOST,
                behaviour=Behaviour(transport=self.transport, backoff=Backoff(base_s=0.001, max_s=0.002, first_s=0.0)),
                on_call=self._on_call,
            )

        if self.transport == "udp":
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.bind((HOST, 0))
            self.peer = UdpPeer(agent(sock.getsockname()[1]), sock)
        else:
            self.server = await asyncio.start_server(lambda r, w: self.peer.serve(r, w), HOST, 0)
            self.peer = TcpPeer(agent(self.server.sockets[0].getsockname()[1]))
        self.agent = self.peer.agent
        async with asyncio.timeout(20):
            await self.agent.start()

    async def _on_call(self, session: Session) -> Answer | None:
        async def refer(at_ns: int, uri: str) -> None:
            return None

        session.on_refer = refer
        return Answer(sdp=SDP)

    def run(self, batch: list[tuple[int, list[tuple[str, int, int, bytes]]]]) -> None:
        sessions = self.agent.sessions
        call, tag = (sessions[-1].call_id, sessions[-1].local_tag) if sessions else ("none", "none")
        own = b"Call-ID: " + call.encode()
        messages = [
            mutated(index, changes, tag, next(self.peer.n)).replace(b"Call-ID: one", own) for index, changes in batch
        ]
        self.loop.run_until_complete(self.peer.attack(messages))
        exchange = self.agent.exchange
        assert self.broken == []
        assert self.agent.inbox.broken == 0
        assert len(exchange.layer.served) <= MOST_SERVED
        assert len(exchange.layer._by_call) <= MOST_SERVED
        assert len(exchange.acks) <= MOST_ACKS
        assert len(self.agent.sessions) <= MOST_SESSIONS
        assert len(exchange._tasks) <= 4 * MOST_SESSIONS

    def stop(self) -> None:
        self.loop.run_until_complete(self.agent.stop())
        if self.transport == "tcp":
            self.server.close()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()


@pytest.fixture(scope="module", params=["udp", "tcp"])
def attack(request: pytest.FixtureRequest) -> Iterator[Attack]:
    attack = Attack(request.param)
    yield attack
    attack.stop()


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # the agent lives on from example to example: there is no smaller one
    suppress_health_check=list(HealthCheck),
)
@given(batch=batches)
def test_whatever_comes_in_it_lives_on(
    attack: Attack, batch: list[tuple[int, list[tuple[str, int, int, bytes]]]]
) -> None:
    attack.run(batch)
