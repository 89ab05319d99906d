"""User agents against each other through a registrar, with real sockets on loopback: every transport, every request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest

from harness.clients.sip.agent import Account, Answer, Behaviour, Event, Session, UserAgent
from harness.clients.sip.flow import FlowFailed
from harness.clients.sip.message import Message
from harness.clients.sip.reconnect import Backoff
from harness.clients.sip.reply import Reply
from harness.clients.sip.sdp import describe, direction
from harness.results import TransportName
from tests.registrar import DOMAIN, HOST, PASSWORD, Registrar

TRANSPORTS: tuple[TransportName, ...] = get_args(TransportName)
QUICK = Backoff(base_s=0.02, max_s=0.05, first_s=0.01)
OFFER, ANSWER = describe((HOST, 40000), session="caller"), describe((HOST, 40002), session="callee")


class Phone:
    """A user agent, what happened to it, and the calls it took."""

    def __init__(self, user: str, registrar: Registrar, transport: TransportName, **behaviour: Any) -> None:
        self.events: list[Event] = []
        self.calls: asyncio.Queue[Session] = asyncio.Queue()
        self.said: list[tuple[str, str]] = []
        self.pick_up = asyncio.Event()
        self.pick_up.set()
        self.agent = UserAgent(
            account=Account(user=user, password=PASSWORD, domain=DOMAIN),
            to=(HOST, registrar.ports[transport]),
            local_ip=HOST,
            behaviour=Behaviour(**{"transport": transport, "backoff": QUICK, "timer_t1_s": 0.05, **behaviour}),
            on_event=self.events.append,
            on_call=self._on_call,
        )

    async def _on_call(self, session: Session) -> Answer | None:
        self.watch(session)
        self.calls.put_nowait(session)
        await self.pick_up.wait()
        return Answer(sdp=ANSWER)

    def watch(self, session: Session) -> None:
        for what in ("reinvite", "bye", "update", "cancel"):
            setattr(session, f"on_{what}", lambda at_ns, what=what: self.said.append((session.side, what)))

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@asynccontextmanager
async def pair(transport: TransportName, registrar: Registrar, **behaviour: Any) -> AsyncIterator[tuple[Phone, Phone]]:
    await registrar.start(transport)
    phones = [Phone(user, registrar, transport, **behaviour) for user in ("1000", "1001")]
    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
    try:
        async with asyncio.timeout(20):
            await asyncio.gather(*(phone.agent.start() for phone in phones))
            yield phones[0], phones[1]
    finally:
        for phone in phones:
            await phone.agent.stop()
        await registrar.stop()
    assert broken == []
    assert [phone.agent.inbox.broken for phone in phones] == [0, 0]


async def call(caller: Phone, callee: Phone) -> tuple[Session, Session]:
    near = caller.agent.call("1001", sdp=OFFER)
    caller.watch(near)
    reply = await near.answered
    assert reply.code == 200
    far = await callee.calls.get()
    return near, far


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_with_everything_in_it(transport: TransportName) -> None:
    async def story() -> None:
        registrar = Registrar(algorithm="MD5" if transport == "tcp" else "SHA-256")
        async with pair(transport, registrar) as (caller, callee):
            assert (await caller.agent.options(timeout_s=5)).code == 200
            assert (await caller.agent.options("sip:1001@pbx.test", timeout_s=5)).code == 200
            near, far = await call(caller, callee)
            assert (near.state, far.state) == ("up", "up")
            assert b"s=callee" in near.remote_sdp
            assert b"s=caller" in far.remote_sdp
            await until(lambda: not far.unacknowledged)
            assert (await near.reinvite(timeout_s=5)).code == 200
            assert (await far.reinvite(timeout_s=5)).code == 200
            assert (await near.update(timeout_s=5)).code == 200
            assert (await far.hold(timeout_s=5)).code == 200
            assert (direction(near.remote_sdp), direction(far.remote_sdp)) == ("sendonly", "recvonly")
            assert far.held
            assert (await far.resume(timeout_s=5)).code == 200
            assert (direction(near.remote_sdp), direction(far.remote_sdp)) == ("sendrecv", "sendrecv")
            assert (await far.bye(timeout_s=5)).code == 200
            assert (near.state, near.ended_by, far.ended_by) == ("ended", "remote", "local")
            assert (await near.bye(timeout_s=5)).code == 481
            assert callee.said == [("callee", "reinvite"), ("callee", "update")]
            assert caller.said == [("caller", "reinvite")] * 3 + [("caller", "bye")]
            assert (caller.agent.sessions, callee.agent.sessions) == ([], [])
        assert "1000" not in registrar.bindings or PASSWORD not in repr(caller.agent.account)

    run(story)


def test_refused_rung_off_and_unknown() -> None:
    async def story() -> None:
        async with pair("udp", Registrar()) as (caller, callee):
            callee.pick_up.clear()
            near = caller.agent.call("1001", sdp=OFFER)
            far = await callee.calls.get()
            await until(lambda: near.state == "ringing")
            assert (await near.cancel()).code == 200
            assert (await near.answered).code == 487
            assert (far.state, far.ended_by, callee.said) == ("ended", "remote", [("callee", "cancel")])
            assert (await caller.agent.call("1009", sdp=OFFER).answered).code == 404
            callee.agent._serving.on_call = None
            refused = caller.agent.call("1001", sdp=OFFER)
            assert (await refused.answered).code == 486
            assert (refused.state, refused.ended_by) == ("ended", "refused")

    run(story)


def test_a_cancel_waits_until_something_was_heard() -> None:
    async def story() -> None:
        registrar = Registrar()
        async with pair("udp", registrar) as (caller, callee):
            callee.pick_up.clear()
            silent = True
            registrar.lose = lambda message: silent and message.method == "INVITE"
            near = caller.agent.call("1001", sdp=OFFER)
            taking_back = asyncio.ensure_future(near.cancel())
            await until(lambda: registrar.methods().count("INVITE") > 1)
            assert "CANCEL" not in registrar.methods()
            silent = False
            assert (await taking_back).code == 200
            assert (await near.answered).code == 487

    run(story)


def test_whatever_is_lost_once_is_repeated() -> None:
    async def story() -> None:
        lost: set[tuple[str, int, str]] = set()

        def lose(message: Message) -> bool:
            key = (message.method, message.code, message.cseq[1])
            first = key not in lost
            lost.add(key)
            return first

        async with pair("udp", Registrar(lose=lose), timer_t1_s=0.02) as (caller, callee):
            near, far = await call(caller, callee)
            await until(lambda: not far.unacknowledged)
            assert (await near.reinvite(timeout_s=5)).code == 200
            assert (await far.bye(timeout_s=5)).code == 200
            assert near.ended_by == "remote"
        assert {("ACK", 0, "ACK"), ("", 200, "INVITE"), ("BYE", 0, "BYE")} <= lost

    run(story)


@pytest.mark.parametrize("transport", ["tcp", "tls", "wss"])
def test_a_client_that_lost_its_flow_comes_back_and_refreshes_its_target(transport: TransportName) -> None:
    async def story() -> None:
        registrar = Registrar()
        async with pair(transport, registrar, refresh_on_reconnect=True) as (caller, callee):
            near, far = await call(caller, callee)
            before = far.target
            caller.agent.drop()
            await until(lambda: far.target != before)
            assert caller.kinds() == ["flow_up", "registered", "flow_down", "flow_up", "registered"]
            await until(lambda: not near.pending_invite and not far.pending_invite)
            assert (await far.reinvite(timeout_s=5)).code == 200
            assert (await near.bye(timeout_s=5)).code == 200
            registrar.nonces.clear()  # another node
            registrar.drop()
            await until(lambda: caller.kinds().count("registered") == 3 and callee.kinds().count("registered") == 2)
            assert callee.kinds() == ["flow_up", "registered", "flow_down", "flow_up", "registered"]
            assert all(len(bound) == 1 for bound in registrar.bindings.values())

    run(story)


def test_a_transfer_is_asked_for_and_told_of() -> None:
    async def story() -> None:
        async with pair("tcp", Registrar()) as (caller, callee):
            near, far = await call(caller, callee)
            told: list[int] = []
            far.on_transfer = lambda at_ns, code: told.append(code)
            assert (await far.refer("sip:1009@pbx.test", timeout_s=5)).code == 603
            asked: list[str] = []

            async def on_refer(at_ns: int, uri: str) -> Reply | None:
                asked.append(uri)
                return await caller.agent.call("1009", sdp=OFFER).answered

            near.on_refer = on_refer
            assert (await far.refer("sip:1009@pbx.test", timeout_s=5)).code == 202
            await until(lambda: len(told) == 2)
            assert (asked, told) == (["sip:1009@pbx.test"], [100, 404])

    run(story)


def test_two_re_invites_that_meet_are_told_to_wait_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.clients.sip.session.glare_wait_s", lambda side, random: 0.3 if side == "caller" else 0)

    async def story() -> None:
        async with pair("tcp", Registrar()) as (caller, callee):
            near, far = await call(caller, callee)
            replies = await asyncio.gather(near.reinvite(timeout_s=5), far.reinvite(timeout_s=5))
            assert [reply.code for reply in replies] == [200, 200]

    run(story)


def test_registration_goes_by_what_the_registrar_grants() -> None:
    async def story() -> None:
        registrar = Registrar(min_expires_s=2)
        async with pair("udp", registrar, expires_s=1, contact_as_seen=True) as (caller, _):
            assert [m.get("expires") for m in registrar.seen if m.method == "REGISTER"][-1] == "2"
            assert caller.agent.exchange.seen_as == caller.agent.exchange.local
            await until(lambda: caller.kinds().count("registered") >= 2)
            assert "flow_down" not in caller.kinds()
            await caller.agent.stop(unregister=True)
            assert registrar.bindings["1000"] == {}

    run(story)


def test_a_wrong_password_is_refused_and_stays_secret() -> None:
    async def story() -> None:
        registrar = Registrar()
        await registrar.start("udp")
        phone = Phone("1000", registrar, "udp")
        phone.agent = UserAgent(
            account=Account(user="1000", password="not-it", domain=DOMAIN),
            to=(HOST, registrar.ports["udp"]),
            local_ip=HOST,
            behaviour=Behaviour(transport="udp", backoff=QUICK),
            on_event=phone.events.append,
        )
        starting = asyncio.ensure_future(phone.agent.start())
        await until(lambda: phone.kinds().count("register_failed") == 2)
        assert registrar.methods().count("REGISTER") == 4
        assert "not-it" not in repr(phone.events) + repr(vars(phone.agent))
        await phone.agent.stop()
        with pytest.raises(FlowFailed):
            await starting
        await registrar.stop()

    run(story)


@pytest.fixture(autouse=True)
def _no_real_randomness(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refreshes come early in their window, so that tests are quick."""
    monkeypatch.setattr("harness.clients.sip.binding.random.uniform", lambda low, high: low)
    yield
