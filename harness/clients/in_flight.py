"""Transactions that are always under way, so that whenever a fault strikes it catches some of each kind.

    python -m harness.clients.in_flight --kind desktop --count 4 --to IP:PORT --domain pbx.test --first 29850 …

`count` sets of four pairs of clients, eight extensions each. `ringing`: a call that is answered after `RING_S`.
`cancel`: one that is taken back after `CANCEL_S`. `hold`: a standing call that is held and resumed. `refer`: a standing
call whose callee is asked to transfer it. Each begins anew some time after its last one is over, each set after another
time (`PAUSES_S`), so that some begin all through an outage: op `in_flight`, its id in both, ok with the code of a
success, fail with that of a refusal, info when no answer came. A call that was answered is ended, and what its BYE got
is told (`in_flight_bye`). What the called end believes `AGREE_S` after the caller is done is told when it is not the
same (`in_flight_orphan`), and how long it went on believing it once it does not any more (`in_flight_orphan_over`).
On SIGTERM the standing calls are asked whether they are still alive (`in_flight_after`). The password comes from the
environment (PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from harness.clients import arguments, open_loop
from harness.clients.kinds import ClientKind, kind
from harness.clients.new_call import PASSWORD
from harness.clients.recorder import Recorder
from harness.clients.sip.agent import Account, UserAgent
from harness.clients.sip.reply import Answer, Reply
from harness.clients.sip.sdp import describe
from harness.clients.sip.session import Session
from harness.clients.sip.transport import Address, local_address_towards
from harness.clock import NS_PER_S, now_ns
from harness.errors import InfrastructureError
from harness.history import OpType

RING_S = 1.5
CANCEL_S = 0.7
PAUSES_S = (0.15, 0.8, 1.6, 3.2)
"""How long the lanes of each set rest between two transactions."""

GIVE_UP_S = 40.0
"""Longer than the timers of RFC 3261 that end a transaction on UDP (B and F: 32 s): who rings is waited for so long."""

TAKEN_BACK_S = 33.0
"""A caller that has sent CANCEL waits 64*T1 for the end of its INVITE, and is done then (RFC 3261 9.1)."""

AGREE_S = 2.0
SETUP_S = 15.0
BEAT_S = 0.5
FINE_S = 6.0
"""A lane whose last success is older than this is not fine."""

ASK_S = 3.0
MEDIA_PORT = 9
"""The discard port: these calls carry no audio."""


class Lane:
    """One pair of clients, `caller` and `callee`, that makes transactions of one kind."""

    def __init__(
        self,
        what: str,
        *,
        own: ClientKind,
        recorder: Recorder,
        rings_s: float,
        agents: Agents,
        pause_s: float = PAUSES_S[0],
        number: int = 0,
    ) -> None:
        self.what = what
        self.last_ok_ns = 0
        self.name = f"{own.name}-{what}-{number}"
        self._pause_s = pause_s
        self._own = own
        self._recorder = recorder
        self._rings_s = rings_s
        self._n = 0
        self._called: Session | None = None
        self._call: Session | None = None
        self.caller, self.callee = agents(self._on_call)

    async def start(self) -> None:
        await asyncio.gather(self.caller.start(), self.callee.start())
        if self.what in ("hold", "refer"):
            self._call = self._invite()
            reply = await self._call.answered
            if not reply.ok:
                raise InfrastructureError(f"{self.what}: the standing call could not be set up: {reply}")

    async def run(self, stop: asyncio.Event) -> None:
        """One after the other; the one under way when `stop` is set is the last."""
        turn = {"ringing": self._ring, "cancel": self._cancel, "hold": self._hold, "refer": self._refer}[self.what]
        while not stop.is_set():
            await turn()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await stop.wait()

    async def ask(self) -> None:
        """Whether the standing call is alive at either end."""
        if self._call is None:
            return
        reply = await self._call.reinvite(timeout_s=ASK_S)
        ended = await self._call.bye(timeout_s=ASK_S)
        value: dict[str, Any] = {"call": self.name, "kind": self.what, "client": self._own.name}
        value |= {"transport": self._own.transport, "reinvite": reply.code, "bye": ended.code}
        self._recorder.op("in_flight_after", "ok", now_ns(), value)

    async def stop(self) -> None:
        await asyncio.gather(self.caller.stop(), self.callee.stop())

    async def _on_call(self, session: Session) -> Answer | None:
        self._called = session
        taken_back = asyncio.Event()
        session.on_cancel = lambda at_ns: taken_back.set()
        session.on_refer = _transferred
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rings_s):
                await taken_back.wait()
        return Answer(sdp=self._sdp(session.call_id))

    async def _ring(self) -> None:
        identity = self._begin()
        call = self._invite()
        reply = await self._final(call)
        self._end(identity, reply, ok=reply.ok)
        if reply.ok:
            ended = await call.bye(timeout_s=ASK_S)
            self._recorder.op("in_flight_bye", "ok", now_ns(), {"id": identity, "code": ended.code})
        await self._agree(identity)

    async def _cancel(self) -> None:
        call = self._invite()
        await asyncio.wait({call.answered}, timeout=CANCEL_S)
        if call.answered.done():  # no chance to take it back: the PBX refused it
            return
        identity = self._begin()
        try:
            async with asyncio.timeout(TAKEN_BACK_S):
                reply = await call.cancel()
                final = await call.answered
        except TimeoutError:
            reply = final = Reply.none(sent_ns=now_ns(), after_ns=now_ns())
        self._end(identity, final if reply.ok else reply, ok=reply.ok and final.code == 487)
        await self._agree(identity)

    async def _hold(self) -> None:
        assert self._call is not None
        identity = self._begin()
        reply = await (self._call.resume() if self._call.held else self._call.hold())
        self._end(identity, reply, ok=reply.ok)

    async def _refer(self) -> None:
        assert self._call is not None
        identity = self._begin()
        reply = await self._call.refer(self._call.target)
        self._end(identity, reply, ok=reply.ok)

    def _invite(self) -> Session:
        self._called = None
        return self.caller.call(self.callee.account.user, sdp=self._sdp("in-flight"))

    async def _final(self, call: Session) -> Reply:
        try:
            async with asyncio.timeout(GIVE_UP_S):
                return await asyncio.shield(call.answered)
        except TimeoutError:
            call.end("timeout")
            return Reply.none(sent_ns=now_ns(), after_ns=now_ns(), why=f"no final answer within {GIVE_UP_S:g} s")

    async def _agree(self, identity: str) -> None:
        """The caller is done; what does the called end believe? One that does not know is left to itself."""
        called, since_ns = self._called, now_ns()
        if called is None or await _over(called, within_s=AGREE_S):
            return
        believes = "rings for nobody" if called.state == "ringing" else "is in a call with nobody"
        self._recorder.op("in_flight_orphan", "ok", now_ns(), {"id": identity, "believes": believes})
        self.callee.spawn(self._follow(identity, called, since_ns))

    async def _follow(self, identity: str, called: Session, since_ns: int) -> None:
        """Until the called end is done, too: by a time-out of its own (RFC 3261 13.3.1.4), or told by the PBX."""
        await _over(called, within_s=None)
        lasted_s = round((now_ns() - since_ns) / NS_PER_S, 3)
        self._recorder.op("in_flight_orphan_over", "ok", now_ns(), {"id": identity, "lasted_s": lasted_s})

    def _begin(self) -> str:
        self._n += 1
        identity = f"{self.name}-{self._n}"
        value = {"id": identity, "kind": self.what, "client": self._own.name, "transport": self._own.transport}
        self._recorder.op("in_flight", "invoke", now_ns(), value)
        return identity

    def _end(self, identity: str, reply: Reply, *, ok: bool) -> None:
        at_ns = now_ns()
        if ok:
            self.last_ok_ns = at_ns
        result: OpType = "ok" if ok else "info" if reply.code is None else "fail"
        value = {"id": identity, "code": reply.code, "sends": reply.sends}
        self._recorder.op("in_flight", result, at_ns, value, error=None if ok else str(reply))

    def _sdp(self, session: str) -> bytes:
        return describe((self.caller.exchange.local_ip, MEDIA_PORT), session=session)


Agents = Callable[[Callable[[Session], Coroutine[Any, Any, Answer | None]]], tuple[UserAgent, UserAgent]]
"""Makes the two clients of a lane; the second is asked by its argument how to answer."""


async def _over(session: Session, *, within_s: float | None) -> bool:
    """Wait for the end of a call; False when it had none by then."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while session.state != "ended":
                await asyncio.sleep(0.02)
    return session.state == "ended"


async def _transferred(at_ns: int, uri: str) -> Reply | None:
    """The transfer itself is not what is looked at: it succeeds at once."""
    return Reply(code=200, reason="OK", sent_ns=at_ns, received_ns=at_ns)


class Lanes:
    """All sets of lanes of one kind of client. Needs a running event loop."""

    def __init__(self, args: argparse.Namespace, *, own: ClientKind, recorder: Recorder) -> None:
        self._own = own
        self._recorder = recorder
        local_ip = args.local or local_address_towards(args.to)
        rings_s = {"ringing": RING_S, "cancel": GIVE_UP_S, "hold": 0.0, "refer": 0.0}
        self.lanes: list[Lane] = []
        for number, (what, ring_s) in itertools.product(range(args.count), rings_s.items()):
            first = args.first + 2 * len(self.lanes)
            agents = _agents(first, own=own, to=args.to, domain=args.domain, local_ip=local_ip)
            pause_s = PAUSES_S[number % len(PAUSES_S)]
            lane = Lane(what, own=own, recorder=recorder, rings_s=ring_s, agents=agents, pause_s=pause_s, number=number)
            self.lanes.append(lane)

    async def start(self) -> None:
        try:
            async with asyncio.timeout(SETUP_S):
                await asyncio.gather(*(lane.start() for lane in self.lanes))
        except TimeoutError:
            raise InfrastructureError(f"transactions of {self._own.name}: not set up within {SETUP_S:g} s") from None

    def beat(self) -> None:
        """Tell whether every lane has had a success lately."""
        at_ns = now_ns()
        stale = [lane.name for lane in self.lanes if at_ns - lane.last_ok_ns > FINE_S * NS_PER_S]
        value = {"fine": len(self.lanes) - len(stale), "of": len(self.lanes)}
        error = f"no success of late: {', '.join(stale[:3])}" if stale else None
        self._recorder.op(f"in_flight_{self._own.name}", "fail" if stale else "ok", at_ns, value, error=error)


def _agents(first: int, *, own: ClientKind, to: Address, domain: str, local_ip: str) -> Agents:
    password = os.environ.get(PASSWORD, "")

    def made(on_call: Callable[[Session], Coroutine[Any, Any, Answer | None]]) -> tuple[UserAgent, UserAgent]:
        caller, callee = (
            UserAgent(
                account=Account(user=str(first + n), password=password, domain=domain), to=to, local_ip=local_ip,
                behaviour=own.behaviour, on_call=on_call if n else None,
            )
            for n in range(2)
        )  # fmt: skip
        return caller, callee

    return made


async def _play(args: argparse.Namespace) -> None:
    stop = open_loop.stop_on_signals()
    own = kind(args.kind)
    recorder = Recorder(args.out, process=args.process, f="in_flight")
    lanes = Lanes(args, own=own, recorder=recorder)
    running: list[asyncio.Task[None]] = []
    try:
        await lanes.start()
        running = [asyncio.create_task(lane.run(stop)) for lane in lanes.lanes]
        async for _ in open_loop.beats(stop, every_s=BEAT_S):
            for task in running:
                if task.done():
                    task.result()  # until it is told to stop a lane ends by an error only
            lanes.beat()
        await asyncio.wait(running, timeout=ASK_S)  # no lane is asked while it asks
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*(lane.ask() for lane in lanes.lanes))
    finally:
        await open_loop.end_all((lane.stop for lane in lanes.lanes), recorder=recorder)


def main() -> None:
    parser = arguments.parser(
        "harness.clients.in_flight", __doc__, first="first extension", count="sets, eight extensions each"
    )
    open_loop.main(_play(parser.parse_args()))


if __name__ == "__main__":
    main()
