"""What a user agent answers, and what it does when its timers fire: on a flow that is a list, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from harness.clients.sip.agent import Account, Answer, Behaviour, Session, UserAgent
from harness.clients.sip.flow import not_sent
from harness.clients.sip.layer import MOST_SERVED
from harness.clients.sip.message import Message, parse, response
from harness.clients.sip.sdp import describe, direction
from harness.clients.sip.serving import MOST_SESSIONS
from harness.clients.sip.transport import Address, Sent
from harness.results import TransportName
from tests.torture import Torture, load
from tests.unit.virtual_time import VirtualTime

SDP = describe(("198.18.0.9", 4000), session="ours")
THEIRS = describe(("198.18.0.1", 5000), session="theirs")


class ListFlow:
    local: Address = ("198.18.0.9", 5060)
    up = True
    pongs = 0

    def __init__(self, transport: TransportName) -> None:
        self.transport = transport
        self.sent: list[Message] = []

    async def open(self, *, timeout_s: float) -> None: ...

    def send(self, data: bytes) -> Sent:
        self.sent.append(parse(data))
        return not_sent()

    def ping(self) -> bool:
        return False

    def close(self) -> None: ...


class Loop:
    """The running loop, with virtual timers."""

    def __init__(self, time: VirtualTime) -> None:
        self._loop = asyncio.get_running_loop()
        self.call_later = time.call_later

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Scene:
    """A user agent that is registered, and the PBX that talks to it."""

    def __init__(self, transport: TransportName = "udp", **behaviour: Any) -> None:
        self.time = VirtualTime()
        self.flow = ListFlow(transport)
        self.sessions: list[Session] = []
        self.answer: Answer | None = Answer(sdp=SDP)
        self.agent = UserAgent(
            account=Account(user="1000", password="p", domain="x"),
            to=("198.18.0.1", 5060),
            local_ip="198.18.0.9",
            behaviour=Behaviour(transport=transport, **behaviour),
            on_call=self._on_call,
        )
        self.agent.exchange.loop = Loop(self.time)  # type: ignore[assignment]
        self.agent.exchange.flow = self.flow
        self.n = 0

    async def _on_call(self, session: Session) -> Answer | None:
        self.sessions.append(session)
        return self.answer

    async def tell(self, data: bytes | str) -> Message | None:
        """Something comes in; what is said at once."""
        before = len(self.flow.sent)
        self.agent.inbox.take(data.encode() if isinstance(data, str) else data, 1)
        await settle()
        assert self.agent.inbox.broken == 0
        return self.flow.sent[-1] if len(self.flow.sent) > before else None

    def asked(
        self, method: str, *, tag: str = "", cseq: int = 1, branch: str = "", body: bytes = b"", **more: str
    ) -> bytes:
        self.n += 1
        to = f"<sip:1000@x>;tag={tag}" if tag else "<sip:1000@x>"
        headers = {
            "Via": f"SIP/2.0/UDP pbx;branch=z9hG4bK{branch or self.n}",
            "From": "<sip:1001@x>;tag=f",
            "To": to,
            "Call-ID": "call",
            "CSeq": f"{cseq} {method}",
            "Contact": "<sip:1001@198.18.0.1>",
            "Record-Route": "<sip:p1;lr>, <sip:p2;lr>",
            "Content-Length": str(len(body)),
        } | {name.replace("_", "-"): value for name, value in more.items()}
        if body:
            headers.setdefault("Content-Type", "application/sdp")
        lines = [f"{method} sip:1000@198.18.0.9 SIP/2.0", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def in_a_call(self, **more: Any) -> Session:
        assert (ok := await self.tell(self.asked("INVITE", branch="inv", body=THEIRS, **more))) is not None
        assert ok.code == 200
        session = self.sessions[-1]
        await self.tell(self.asked("ACK", tag=session.local_tag, branch="ack"))
        return session

    async def advance(self, seconds: float) -> list[str]:
        """Let the time pass; what was sent meanwhile."""
        before = len(self.flow.sent)
        self.time.pass_s(seconds)
        await settle()
        return [message.method or str(message.code) for message in self.flow.sent[before:]]

    async def reply(self, code: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        """To the request that was sent last."""
        asked = next(message for message in reversed(self.flow.sent) if message.method not in ("", "ACK"))
        await self.tell(response(asked, code, "", to_tag="far", headers=headers, body=body))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "torture", [torture for torture in load() if not torture.data.startswith(b"SIP/")], ids=lambda torture: torture.name
)
def test_what_rfc_4475_wants_answered(torture: Torture) -> None:
    async def story() -> None:
        said: list[bytes] = []
        scene = Scene()
        scene.flow.send = lambda data: said.append(data) or not_sent()  # type: ignore[method-assign,func-returns-value]
        scene.agent.inbox.take(torture.data, 1)
        await settle()
        assert scene.agent.inbox.broken == 0
        code = said[-1].split(b" ")[1].decode()
        if torture.verdict != "valid":
            assert code == torture.verdict
        else:
            assert code in ("200", "405", "481", "400")
        await scene.agent.stop()

    play(story)


def test_a_call_along_its_route_and_back() -> None:
    async def story() -> None:
        scene = Scene()
        session = await scene.in_a_call()
        assert [m.code for m in scene.flow.sent] == [180, 200]
        assert scene.flow.sent[1].all("record-route") == ["<sip:p1;lr>", "<sip:p2;lr>"]
        assert await scene.advance(40) == []
        asking = asyncio.ensure_future(session.reinvite())
        await settle()
        sent = scene.flow.sent[-1]
        assert (sent.uri, sent.all("route")) == ("sip:1001@198.18.0.1", ["<sip:p1;lr>", "<sip:p2;lr>"])
        await scene.reply(200, ("Contact", "<sip:moved@198.18.0.2>"), body=THEIRS)
        assert (await asking).code == 200
        ack = scene.flow.sent[-1]
        assert (ack.method, ack.uri, ack.cseq) == ("ACK", "sip:moved@198.18.0.2", (1, "ACK"))
        assert ack.branch != sent.branch
        await scene.reply(200, ("Contact", "<sip:moved@198.18.0.2>"))
        assert [m.method for m in scene.flow.sent[-2:]] == ["ACK", "ACK"]

    play(story)


def test_whatever_is_repeated_gets_what_it_got() -> None:
    async def story() -> None:
        scene = Scene()
        invite = scene.asked("INVITE", branch="same", body=THEIRS)
        await scene.tell(invite)
        first = scene.flow.sent[-1]
        await scene.tell(invite)
        assert scene.flow.sent[-1] is first
        merged = await scene.tell(scene.asked("INVITE", branch="other", body=THEIRS))
        assert merged is not None
        assert merged.code == 482
        bye = scene.asked("BYE", tag=scene.sessions[0].local_tag, cseq=2, branch="bye")
        for _ in range(2):
            ok = await scene.tell(bye)
            assert ok is not None
            assert ok.code == 200
        assert len(scene.sessions) == 1

    play(story)


def test_a_200_that_nobody_acknowledges_ends_the_call() -> None:
    async def story() -> None:
        scene = Scene("tcp")
        await scene.tell(scene.asked("INVITE", body=THEIRS))
        said = await scene.advance(31)
        assert said == ["200"] * 9
        assert await scene.advance(2) == ["200", "BYE"]
        assert (scene.sessions[0].ended_by, scene.agent.sessions) == ("timeout", [])

    play(story)


@pytest.mark.parametrize(
    ("cseq", "tag", "code"), [(2, None, 200), (0, None, 500), (2, "unknown", 481)], ids=["next", "old", "unknown"]
)
def test_requests_within_a_dialog(cseq: int, tag: str | None, code: int) -> None:
    async def story() -> None:
        scene = Scene()
        session = await scene.in_a_call()
        said = await scene.tell(scene.asked("INFO", tag=tag or session.local_tag, cseq=cseq))
        assert said is not None
        assert said.code == code

    play(story)


def test_hold_and_a_re_invite_without_an_offer() -> None:
    async def story() -> None:
        scene = Scene()
        session = await scene.in_a_call()
        held = THEIRS.replace(b"sendrecv", b"sendonly")
        said = await scene.tell(scene.asked("INVITE", tag=session.local_tag, cseq=2, body=held))
        assert said is not None
        assert direction(said.body) == "recvonly"
        await scene.tell(scene.asked("ACK", tag=session.local_tag, cseq=2))
        said = await scene.tell(scene.asked("INVITE", tag=session.local_tag, cseq=3))
        assert said is not None
        assert direction(said.body) == "sendrecv"
        await scene.tell(scene.asked("ACK", tag=session.local_tag, cseq=3, body=THEIRS))
        assert session.remote_sdp == THEIRS
        versions = [m.body.split(b" ")[2] for m in scene.flow.sent if m.code == 200 and m.body]
        assert versions == [b"2", b"3", b"4"]

    play(story)


def test_a_re_invite_that_meets_ours_is_told_to_wait() -> None:
    async def story() -> None:
        scene = Scene()
        session = await scene.in_a_call()
        asking = asyncio.ensure_future(session.reinvite())
        await settle()
        for method, code in (("INVITE", 491), ("UPDATE", 491)):
            said = await scene.tell(scene.asked(method, tag=session.local_tag, cseq=2, body=THEIRS))
            assert said is not None
            assert said.code == code
        asking.cancel()

    play(story)


def test_a_session_timer_is_kept_by_whoever_agreed_to() -> None:
    async def story() -> None:
        scene = Scene("tcp")
        session = await scene.in_a_call(Session_Expires="90;refresher=uas", Supported="timer", Allow="UPDATE")
        assert scene.flow.sent[1].get("session-expires") == "90;refresher=uas"
        assert await scene.advance(44) == []
        assert await scene.advance(2) == ["UPDATE"]
        await scene.reply(200, ("Session-Expires", "90;refresher=uac"))
        assert await scene.advance(46) == ["UPDATE"]
        await scene.reply(481)
        assert scene.flow.sent[-1].method == "BYE"
        assert session.ended_by == "timeout"

    play(story)


def test_a_session_that_nobody_refreshes_is_given_up() -> None:
    async def story() -> None:
        scene = Scene("tcp")
        session = await scene.in_a_call(Session_Expires="90;refresher=uac", Supported="timer")
        assert await scene.advance(59) == []
        refreshed = scene.asked(
            "UPDATE", tag=session.local_tag, cseq=2, Session_Expires="90;refresher=uac", Supported="timer"
        )
        assert await scene.tell(refreshed) is not None
        assert await scene.advance(59) == []
        assert await scene.advance(2) == ["BYE"]
        too_often = await scene.tell(
            scene.asked("INVITE", Session_Expires="10", Supported="timer", body=THEIRS, Call_ID="2")
        )
        assert too_often is not None
        assert (too_often.code, too_often.get("min-se")) == (422, "90")

    play(story)


def test_a_422_is_met() -> None:
    async def story() -> None:
        scene = Scene("tcp", session_expires_s=90)
        session = scene.agent.call("1001", sdp=SDP)
        await settle()
        assert scene.flow.sent[-1].get("session-expires") == "90"
        await scene.reply(422, ("Min-SE", "300"))
        assert [m.method for m in scene.flow.sent[-2:]] == ["ACK", "INVITE"]
        assert (scene.flow.sent[-1].get("session-expires"), scene.flow.sent[-1].cseq[0]) == ("300", 2)
        await scene.reply(200, ("Contact", "<sip:b@x>"), ("Session-Expires", "300;refresher=uac"))
        assert (await session.answered).code == 200
        assert await scene.advance(151) == ["INVITE"]

    play(story)


def test_another_party_that_a_fork_reached_is_hung_up_on() -> None:
    async def story() -> None:
        scene = Scene("tcp")
        session = scene.agent.call("1001", sdp=SDP)
        await settle()
        invite = scene.flow.sent[-1]
        await scene.reply(200, ("Contact", "<sip:b@x>"))
        assert session.state == "up"
        other = response(invite, 200, "OK", to_tag="other", headers=[("Contact", "<sip:c@x>")])
        await scene.tell(other)
        assert [(m.method, m.uri, m.to_tag) for m in scene.flow.sent[-2:]] == [
            ("ACK", "sip:c@x", "other"),
            ("BYE", "sip:c@x", "other"),
        ]
        assert session.state == "up"

    play(story)


def test_a_2xx_after_the_wait_is_over_is_acknowledged_and_ended() -> None:
    async def story() -> None:
        scene = Scene("tcp")
        session = await scene.in_a_call()
        asking = asyncio.ensure_future(session.reinvite())
        await settle()
        invite = scene.flow.sent[-1]
        asking.cancel()
        await settle()
        await scene.tell(response(invite, 200, "OK", to_tag="f", headers=[("Contact", "<sip:b@x>")]))
        assert (scene.flow.sent[-1].method, session.state) == ("ACK", "up")

    play(story)


def test_an_answer_with_another_via_is_not_ours() -> None:
    async def story() -> None:
        scene = Scene("tcp")
        asking = asyncio.ensure_future(scene.agent.options(timeout_s=5))
        await settle()
        answer = response(scene.flow.sent[-1], 200, "OK", to_tag="t")
        await scene.tell(answer.replace(b"\r\nFrom", b"\r\nVia: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK2\r\nFrom"))
        assert not asking.done()
        await scene.tell(answer)
        assert (await asking).code == 200

    play(story)


def test_what_it_keeps_is_bounded() -> None:
    async def story() -> None:
        scene = Scene()
        for n in range(3 * MOST_SERVED):
            await scene.tell(scene.asked("INVITE", Call_ID=f"many-{n}", body=THEIRS))
        assert len(scene.agent.sessions) == MOST_SESSIONS
        assert len(scene.agent.exchange.layer.served) <= MOST_SERVED
        await scene.agent.stop()
        assert scene.time.pending == 0

    play(story)
