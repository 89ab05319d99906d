"""5,000 mutated WebSocket frames (RFC 6455, RFC 7118) into an open flow: nothing is raised, what is kept is bounded,
and a flow that gives up says so once. The seed is fixed.

The frames reach the flow as bytes, cut anywhere, with no socket below it: TLS and TCP have tests of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from harness.clients.sip.flow import Inbox
from harness.clients.sip.framer import BIGGEST
from harness.clients.sip.message import Message
from harness.clients.sip.websocket import WssFlow
from tests.unit.test_sip_fuzz import in_dialog, mutated, mutations, templates

BATCH, EXAMPLES = 20, 250
GOOD = in_dialog("OPTIONS", "alive", "", 1, body=b"")


class Wire:
    """In place of the stream: always open until closed."""

    def __init__(self) -> None:
        self.is_open = True

    def write(self, data: bytes) -> str | None:
        return None

    def close(self) -> None:
        self.is_open = False


class Subject:
    """An open flow, and what came out of it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.downs: list[str] = []
        self.inbox = Inbox(
            lambda message, at_ns: self.messages.append(message), lambda why, at_ns: self.downs.append(why)
        )
        self.flow = WssFlow(to=("127.0.0.1", 1), local_ip="127.0.0.1", inbox=self.inbox)
        self.flow._stream = Wire()  # type: ignore[assignment]
        self.flow._protocol = ClientProtocol(parse_uri("wss://127.0.0.1:1/"), max_size=BIGGEST, state=State.OPEN)

    def take(self, data: bytes) -> None:
        if self.flow._stream.is_open:
            self.flow._deliver(data)
        assert len(self.flow._parts) <= BIGGEST
        assert self.inbox.broken == 0
        assert len(self.downs) == (0 if self.flow._stream.is_open else 1)


def frame(payload: bytes, *, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> bytes:
    """As a server sends it: not masked."""
    return Frame(opcode, payload, fin).serialize(mask=False)


def halves(payload: bytes) -> bytes:
    middle = len(payload) // 2
    return frame(payload[:middle], fin=False) + frame(payload[middle:], opcode=Opcode.CONT)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "whole": frame,
    "binary": lambda payload: frame(payload, opcode=Opcode.BINARY),
    "in two": halves,
    "a ping between": lambda payload: halves(payload).replace(b"\x80", frame(b"x", opcode=Opcode.PING) + b"\x80", 1),
    "never ends": lambda payload: frame(payload, fin=False),
    "continues nothing": lambda payload: frame(payload, opcode=Opcode.CONT),
    "masked": lambda payload: Frame(Opcode.TEXT, payload).serialize(mask=True),
    "reserved bits": lambda payload: bytes([frame(payload)[0] | 0x70]) + frame(payload)[1:],
    "no such opcode": lambda payload: bytes([0x8B]) + frame(payload)[1:],
    "longer than it says": lambda payload: frame(payload) + payload[:50],
    "shorter than it says": lambda payload: frame(payload)[: max(1, len(payload) // 2)],
    "huge": lambda payload: b"\x81\x7f" + (1 << 40).to_bytes(8, "big") + payload,
    "close": lambda payload: frame(b"\x03\xe8" + payload[:20], opcode=Opcode.CLOSE),
    "close with nonsense": lambda payload: frame(b"\x03", opcode=Opcode.CLOSE),
    "long ping": lambda payload: bytes([0x89, 126]) + (1000).to_bytes(2, "big") + payload[:1000].ljust(1000),
    "noise": lambda payload: payload,
}

batches = st.lists(
    st.tuples(templates, mutations, st.sampled_from(sorted(DAMAGE)), st.integers(1, 2000)),
    min_size=BATCH,
    max_size=BATCH,
)


@settings(
    max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(batch=batches)
def test_whatever_frames_come_in_the_flow_lives_on_or_says_that_it_does_not(
    batch: list[tuple[int, list[tuple[str, int, int, bytes]], str, int]],
) -> None:
    async def go() -> None:
        subject = Subject()
        for n, (index, changes, damage, step) in enumerate(batch):
            if not subject.flow._stream.is_open:
                subject = Subject()
            data = DAMAGE[damage](mutated(index, changes, "t", n))
            for at in range(0, len(data), step):
                subject.take(data[at : at + step])

    asyncio.run(go())


@pytest.mark.parametrize("damage", ["whole", "binary", "in two", "a ping between"])
def test_what_the_protocol_allows_arrives(damage: str) -> None:
    async def go() -> Subject:
        subject = Subject()
        subject.take(DAMAGE[damage](GOOD))
        return subject

    subject = asyncio.run(go())
    assert [message.method for message in subject.messages] == ["OPTIONS"]
    assert subject.flow.up


@pytest.mark.parametrize(
    "damage", ["masked", "reserved bits", "no such opcode", "huge", "continues nothing", "long ping"]
)
def test_what_it_forbids_ends_the_flow_with_a_reason(damage: str) -> None:
    async def go() -> Subject:
        subject = Subject()
        subject.take(DAMAGE[damage](GOOD))
        return subject

    subject = asyncio.run(go())
    assert subject.messages == []
    assert len(subject.downs) == 1 and "WebSocket" in subject.downs[0]
