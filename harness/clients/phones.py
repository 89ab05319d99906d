"""Calls of one kind of client, held across whatever happens, and asked for their fate at the end.

    python -m harness.clients.phones --kind ip_phone --to 203.0.113.1:5060 --domain pbx.test --first 1000 --count 20 …

Each call has two clients of its own: extension `first + 2n` calls `first + 2n + 1`. Both register, reconnect and
re-register as their kind does; nobody re-INVITEs. Audio runs in a process of its own (harness/clients/rtp). Twice a
second it is told how many calls carry the right audio both ways. On SIGTERM the time without help is over (`unaided`):
a re-INVITE from the caller, one from the callee, then BYE, by turns from either end. The password comes from the
environment (PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.clients import arguments, open_loop
from harness.clients.kinds import ClientKind, kind
from harness.clients.media import Token
from harness.clients.new_call import PASSWORD, header
from harness.clients.recorder import Recorder
from harness.clients.rtp.control import Leg, MediaEngine
from harness.clients.sip.agent import Account, UserAgent
from harness.clients.sip.message import Header
from harness.clients.sip.reply import Answer, Event, Reply
from harness.clients.sip.sdp import BadSdp, audio_address, describe
from harness.clients.sip.session import Session
from harness.clients.sip.transport import Address, local_address_towards
from harness.clock import now_ns
from harness.errors import InfrastructureError
from harness.fates import SIDES, Side

SETUP_S = 15.0
"""How long the calls may take to be up."""

BESIDE = 10
"""How many calls are set up side by side."""

BEAT_S = 0.5
SILENT_MS = 500.0
"""A direction without a right packet for this long is not carrying audio just now."""

HELP_S = 1.5
"""How long audio is given to come back after each re-INVITE."""

ASK_S = 3.0
"""How long an answer to a re-INVITE or BYE is waited for."""


@dataclass(kw_only=True)
class Held:
    """One call: who calls whom, and what is left of it at either end."""

    n: int
    name: str
    caller: str
    callee: str
    agents: dict[Side, UserAgent] = field(default_factory=dict)
    sessions: dict[Side, Session] = field(default_factory=dict)
    legs: set[Side] = field(default_factory=set)
    up: bool = False

    def leg(self, side: Side) -> Leg:
        return Leg(call=self.name, side=side)


class Phones:
    """Needs a running event loop and a media engine."""

    def __init__(
        self,
        *,
        own: ClientKind,
        to: Address,
        domain: str,
        password: str,
        local_ip: str,
        first: int,
        count: int,
        engine: MediaEngine,
        recorder: Recorder,
        record: Header | None = None,
    ) -> None:
        self._record = record
        self._own = own
        self._to = to
        self._domain = domain
        self._password = password
        self._local_ip = local_ip
        self._engine = engine
        self._recorder = recorder
        self._run = secrets.token_bytes(8)
        self._asking = asyncio.Semaphore(BESIDE)
        self.calls = [
            Held(
                n=n,
                name=f"{own.name}-{n}",
                caller=str(first + 2 * n),
                callee=str(first + 2 * n + 1),
            )
            for n in range(count)
        ]

    async def set_up(self) -> None:
        """Register everyone and set up every call; `InfrastructureError` names the first that could not be."""
        problems = await asyncio.gather(*(self._bounded(held) for held in self.calls))
        wrong = [problem for problem in problems if problem]
        if wrong:
            raise InfrastructureError(f"{len(wrong)} of {len(self.calls)} calls of {self._own.name}: {wrong[0]}")

    async def beat(self) -> None:
        """Tell how many calls carry the right audio both ways just now."""
        silent = [held.name for held in self.calls if not await self._flows(held)]
        now = now_ns()
        value = {"up": len(self.calls) - len(silent), "of": len(self.calls)}
        error = f"{len(silent)} of {len(self.calls)} without audio: {', '.join(silent[:3])}" if silent else None
        self._recorder.op(f"calls_{self._own.name}", "fail" if silent else "ok", now, value, error=error)

    async def ask_for_fates(self) -> None:
        """From now on the client helps, and then ends the calls."""
        now = now_ns()
        for held in self.calls:
            self._recorder.op("unaided", "ok", now, {"call": held.name})
        await asyncio.gather(*(self._ask(held) for held in self.calls))

    async def stop(self) -> None:
        for held in self.calls:
            for agent in held.agents.values():
                await agent.stop()
        await self._engine.stop()

    async def _bounded(self, held: Held) -> str | None:
        async with self._asking:
            try:
                async with asyncio.timeout(SETUP_S):
                    return await self._set_up(held)
            except TimeoutError:
                return f"{held.name}: not up within {SETUP_S:g} s"

    async def _set_up(self, held: Held) -> str | None:
        """Both register, the caller calls, both hear the right audio. Returns what went wrong."""
        for side in SIDES:
            held.agents[side] = self._agent(held, side)
        await asyncio.gather(*(agent.start() for agent in held.agents.values()))
        local = await self._open(held, "caller")
        began_ns = now_ns()
        asked = {"call": held.name, "kind": self._own.name, "transport": self._own.transport}
        asked |= {"caller": held.caller, "callee": held.callee}
        self._recorder.op("call", "invoke", began_ns, asked)
        session = held.agents["caller"].call(
            held.callee, sdp=describe(local, session=held.name), headers=self._recorded(held)
        )
        self._watch(held, "caller", session)
        reply = await session.answered
        problem = self._connect(held, "caller", session) if reply.ok else str(reply)
        if problem is None:
            for side in SIDES:
                await self._engine.heard(held.leg(side), timeout_s=SETUP_S)
        ended_ns = now_ns()
        setup_ms = round((ended_ns - began_ns) / 1e6, 3)
        value = {"call": held.name, "call_id": session.call_id, "setup_ms": setup_ms}
        value |= {"recorded": True} if self._recorded(held) else {}
        held.up = problem is None
        self._recorder.op("call", "ok" if held.up else "fail", ended_ns, value, error=problem)
        return None if problem is None else f"{held.name}: {problem}"

    def _recorded(self, held: Held) -> tuple[Header, ...]:
        """What makes the PBX record a call: the first one, where its profile says how."""
        return (self._record,) if self._record and held.n == 0 else ()

    def _agent(self, held: Held, side: Side) -> UserAgent:
        account = Account(
            user=held.caller if side == "caller" else held.callee, password=self._password, domain=self._domain
        )

        def on_event(event: Event) -> None:
            if event.kind in ("flow_up", "flow_down", "registered", "register_failed"):
                self._event(held, side, event.kind, event.time_ns, **event.detail)

        async def on_call(session: Session) -> Answer | None:
            self._watch(held, side, session)
            local = await self._open(held, side)
            problem = self._connect(held, side, session)
            return None if problem else Answer(sdp=describe(local, session=held.name))

        return UserAgent(
            account=account,
            to=self._to,
            local_ip=self._local_ip,
            behaviour=self._own.behaviour,
            on_event=on_event,
            on_call=on_call,
        )

    async def _open(self, held: Held, side: Side) -> Address:
        role = "A" if side == "caller" else "B"
        mark = Token(run=self._run, role=role, n=held.n)
        at = await self._engine.open(held.leg(side), local_ip=self._local_ip, mark=mark)
        held.legs.add(side)
        return at

    def _connect(self, held: Held, side: Side, session: Session) -> str | None:
        """Send audio where the other side wants it; returns why that can't be."""
        try:
            self._engine.send(held.leg(side), audio_address(session.remote_sdp))
        except BadSdp as error:
            return f"no usable audio: {error}"
        return None

    async def _flows(self, held: Held) -> bool:
        """Whether right audio arrives at both ends just now."""
        states = [await self._engine.state(held.leg(side)) for side in held.legs]
        return len(states) == 2 and all((s.since_last_ms or SILENT_MS) < SILENT_MS for s in states)

    def _watch(self, held: Held, side: Side, session: Session) -> None:
        """Record what the other side does to a call, and follow where it wants its audio."""
        held.sessions[side] = session

        def told(event: str) -> Callable[[int], None]:
            return lambda at_ns: self._event(held, side, event, at_ns)

        def on_reinvite(at_ns: int) -> None:
            self._event(held, side, "reinvite_received", at_ns)
            self._connect(held, side, session)

        def on_bye(at_ns: int) -> None:
            self._event(held, side, "bye_received", at_ns)
            self._engine.hold(held.leg(side))

        session.on_reinvite = on_reinvite
        session.on_bye = on_bye
        session.on_update = told("update_received")

    async def _ask(self, held: Held) -> None:
        if not held.up:
            return
        for side in SIDES:
            if (session := held.sessions.get(side)) is not None and session.state == "up":
                reply = await self._asked(held, side, "reinvite", session)
                if reply.ok:
                    self._connect(held, side, session)
                await asyncio.sleep(HELP_S)
        ending: Side = SIDES[held.n % 2]
        session = held.sessions.get(ending)
        if session is not None and session.state == "up":
            await self._asked(held, ending, "bye", session)
        for side in held.legs:
            await self._engine.close(held.leg(side))

    async def _asked(self, held: Held, side: Side, what: str, session: Session) -> Reply:
        reply = await (session.reinvite(timeout_s=ASK_S) if what == "reinvite" else session.bye(timeout_s=ASK_S))
        self._event(held, side, f"{what}_sent", reply.sent_ns, code=reply.code, took_ms=reply.took_ms)
        return reply

    def _event(self, held: Held, side: Side, event: str, at_ns: int, **detail: object) -> None:
        value = {"call": held.name, "side": side, "event": event, **detail}
        self._recorder.op("call_event", "ok", at_ns, value)


async def _hold(args: argparse.Namespace) -> None:
    stop = open_loop.stop_on_signals()
    local_ip = args.local or local_address_towards(args.to)
    recorder = Recorder(args.out, process=args.process, f="call")
    engine = await MediaEngine.start(
        out=args.out.with_name(f"{args.out.stem}_media.jsonl"), process=f"{args.process}_media"
    )
    phones = Phones(
        own=kind(args.kind),
        to=args.to,
        domain=args.domain,
        password=os.environ.get(PASSWORD, ""),
        local_ip=local_ip,
        first=args.first,
        count=args.count,
        engine=engine,
        recorder=recorder,
        record=header(args.record) if args.record else None,
    )
    try:
        await phones.set_up()
        async for _ in open_loop.beats(stop, every_s=BEAT_S):
            await phones.beat()
        await phones.ask_for_fates()
    finally:
        await open_loop.end_all([phones.stop], recorder=recorder)


def main() -> None:
    parser = arguments.parser(
        "harness.clients.phones", __doc__, count="calls to hold", first="first extension; each call uses two"
    )
    parser.add_argument("--record", metavar="HEADER", help="'Name: value' that makes the PBX record a call")
    open_loop.main(_hold(parser.parse_args()))


if __name__ == "__main__":
    main()
