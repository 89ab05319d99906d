"""Held calls of real clients: each calls a plain phone of ours, is watched from both ends, and asked for its fate.

What the processes of `browser` and `softphone` have in common. The order of help at the end is that of every held call:
`unaided`, a re-INVITE from the caller, one from the callee, what else this client can do, BYE, a new call.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from harness.clients import arguments, open_loop
from harness.clients.kinds import kind
from harness.clients.new_call import PASSWORD
from harness.clients.partner import Partner
from harness.clients.recorder import Recorder
from harness.clients.rtp.control import MediaEngine
from harness.clients.rtp.tone import Tone, tone_of_call
from harness.clients.shooting import address
from harness.clients.sip.behaviour import Account
from harness.clients.sip.transport import Address, local_address_towards
from harness.clients.story import Story
from harness.clock import now_ns
from harness.errors import InfrastructureError

PHONES_PORT = 5060
REGISTER_S = 10.0
AUDIO_S = 10.0
BEAT_S = 0.5
BESIDE = 3
"""How many calls are set up side by side: a browser that starts takes a core for half a second."""


@dataclass(frozen=True, kw_only=True)
class Who:
    """One call: `user` calls `callee`, sends the tone's `hz` and is right to hear its `other_hz`."""

    call: str
    kind: str
    transport: str
    to: Address
    domain: str
    user: str
    callee: str
    password: str = field(repr=False)
    tone: Tone
    expires_s: int


class RealCall(Protocol):
    """The calling end. `begin` registers, calls, and waits until it hears something or the call is over; it returns why
    it could not even call. The three kinds of help do nothing where they can't."""

    @property
    def story(self) -> Story: ...

    @property
    def heard_ns(self) -> int | None: ...

    async def begin(self) -> str | None: ...

    def flows(self) -> bool: ...

    def check(self) -> None: ...

    async def help(self) -> None: ...

    async def help_more(self) -> None: ...

    async def hang_up(self) -> None: ...

    async def call_again(self) -> None: ...

    async def close(self) -> None: ...


Make = Callable[[Who, Recorder], RealCall]


@dataclass(kw_only=True)
class Pair:
    """A call and its two ends."""

    caller: RealCall
    partner: Partner

    @property
    def name(self) -> str:
        return self.caller.story.call

    async def begin(self) -> str | None:
        """Register the phone, start the client, call, and wait for audio both ways; what went wrong."""
        try:
            async with asyncio.timeout(REGISTER_S):
                await self.partner.start()
        except TimeoutError:
            return f"{self.name}: the called phone was not registered within {REGISTER_S:g} s"
        if problem := await self.caller.begin():
            return f"{self.name}: {problem}"
        callee_heard_ns = None
        if not self.caller.story.over:
            with suppress(TimeoutError):
                callee_heard_ns = await self.partner.heard(AUDIO_S)
        story = self.caller.story
        problem = story.set_up(
            caller_heard_ns=self.caller.heard_ns, callee_heard_ns=callee_heard_ns, call_id=self.partner.call_id
        )
        return f"{self.name}: {problem}" if problem else None

    async def flows(self) -> bool:
        """Whether the right audio arrives at both ends just now."""
        return self.caller.flows() and await self.partner.flows()

    async def ask(self) -> None:
        """`unaided` is written: now help, each thing only where the call is still up, and end it."""
        await self.caller.help()
        await self.partner.help()
        if not await self.flows():
            await self.caller.help_more()
        flowed = await self.flows()
        await self.caller.hang_up()
        if not flowed:
            await self.caller.call_again()

    async def close(self) -> None:
        await self.caller.close()
        await self.partner.stop()


async def hold(args: argparse.Namespace, make: Make) -> None:
    """Set the calls up, tell twice a second how many carry audio both ways, and on SIGTERM ask for their fates."""
    stop = open_loop.stop_on_signals()
    recorder = Recorder(args.out, process=args.process, f="call")
    media = args.out.with_name(f"{args.out.stem}_media.jsonl")
    engine = await MediaEngine.start(out=media, process=f"{args.process}_media")
    pairs = [_pair(args, n, make, engine=engine, recorder=recorder) for n in range(args.count)]
    try:
        await _set_up(pairs, args.kind)
        async for _ in open_loop.beats(stop, every_s=BEAT_S):
            for pair in pairs:
                pair.caller.check()
            await _beat(pairs, args.kind, recorder)
        for pair in pairs:
            pair.caller.story.unaided()
        await asyncio.gather(*(pair.ask() for pair in pairs))
    finally:
        await open_loop.end_all([*(pair.close for pair in pairs), engine.stop], recorder=recorder)


def parser(module: str, doc: str | None, *, own_kind: str) -> argparse.ArgumentParser:
    """What such a process is told; a harness names its cell in the environment."""
    made = arguments.parser(
        module, doc, kind=own_kind, count="calls to hold", first="first extension; each call uses two"
    )
    made.add_argument("--phones-to", type=address, metavar="IP:PORT", help="where the called phones connect, by UDP")
    return made


def _pair(args: argparse.Namespace, n: int, make: Make, *, engine: MediaEngine, recorder: Recorder) -> Pair:
    own, tone, password = kind(args.kind), tone_of_call(n), os.environ.get(PASSWORD, "")
    who = Who(
        call=f"{args.kind}-{n}",
        kind=args.kind,
        transport=getattr(args, "transport", None) or own.transport,
        to=args.to,
        domain=args.domain,
        user=str(args.first + 2 * n),
        callee=str(args.first + 2 * n + 1),
        password=password,
        tone=tone,
        expires_s=own.expires_s,
    )
    partner = Partner(
        Account(user=who.callee, domain=who.domain, password=password),
        to=args.phones_to or (args.to[0], PHONES_PORT),
        local_ip=args.local or local_address_towards(args.to),
        engine=engine,
        call=who.call,
        tone=tone.other,
        recorder=recorder,
    )
    return Pair(caller=make(who, recorder), partner=partner)


async def _set_up(pairs: Sequence[Pair], name: str) -> None:
    asking = asyncio.Semaphore(BESIDE)

    async def begin(pair: Pair) -> str | None:
        async with asking:
            return await pair.begin()

    problems = [problem for problem in await asyncio.gather(*(begin(pair) for pair in pairs)) if problem]
    if problems:
        raise InfrastructureError(f"{len(problems)} of {len(pairs)} calls of {name}: {problems[0]}")


async def _beat(pairs: Sequence[Pair], name: str, recorder: Recorder) -> None:
    silent = [pair.name for pair in pairs if not await pair.flows()]
    value = {"up": len(pairs) - len(silent), "of": len(pairs)}
    error = f"{len(silent)} of {len(pairs)} without audio: {', '.join(silent[:3])}" if silent else None
    recorder.op(f"calls_{name}", "fail" if silent else "ok", now_ns(), value, error=error)
