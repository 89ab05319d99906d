"""Thousands of registered clients in one process: they keep themselves registered, and come back as their kind does.

    python -m harness.clients.population --kind desktop --count 2000 --first 2000 --to IP:PORT --domain pbx.test …

Everyone registers once at the start, a bounded number side by side; expiries are spread, so that refreshes are, too.
Once a second it is told how many are registered; what happens to a client is told when it happens (`client`). Clients
of a kind that sleeps lose their flow now and then, and come back with a new one and a new contact; asleep is not lost,
but who wakes up and finds nobody is. The password comes from the environment (PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from functools import partial

from harness.clients import arguments, open_loop
from harness.clients.kinds import ClientKind, kind
from harness.clients.new_call import PASSWORD
from harness.clients.recorder import Recorder
from harness.clients.sip.agent import Account, UserAgent
from harness.clients.sip.reply import Event
from harness.clients.sip.transport import Address, local_address_towards
from harness.clock import now_ns
from harness.errors import InfrastructureError

BESIDE = 8
"""How many clients register side by side at the start, which is no storm yet."""

BEAT_S = 1.0
TOLD = ("flow_up", "flow_down", "registered", "register_failed")


class Population:
    """Needs a running event loop."""

    def __init__(
        self,
        *,
        own: ClientKind,
        to: Address,
        domain: str,
        password: str,
        local_ip: str,
        users: range,
        recorder: Recorder,
    ) -> None:
        self._own = own
        self._recorder = recorder
        self._registered: set[str] = set()
        self._asleep: set[str] = set()
        self._random = random.Random(users.start)
        self._agents = [
            UserAgent(
                account=Account(user=str(user), password=password, domain=domain),
                to=to,
                local_ip=local_ip,
                behaviour=own.behaviour,
                on_event=partial(self._on_event, str(user)),
            )
            for user in users
        ]

    async def register(self) -> None:
        """Everyone registers; `InfrastructureError` when one of them can't."""
        asking = asyncio.Semaphore(BESIDE)

        async def one(agent: UserAgent) -> None:
            async with asking:
                await agent.start()

        await asyncio.gather(*(one(agent) for agent in self._agents))
        missing = len(self._agents) - len(self._registered)
        if missing:
            raise InfrastructureError(f"{missing} of {len(self._agents)} clients could not register")

    def beat(self) -> None:
        """Tell how many are registered."""
        up, asleep, of = len(self._registered), len(self._asleep), len(self._agents)
        lost = of - up - asleep
        error = f"{lost} of {of} not registered" if lost else None
        value = {"up": up, "of": of} | ({"asleep": asleep} if asleep else {})
        self._recorder.op(f"clients_{self._own.name}", "fail" if lost else "ok", now_ns(), value, error=error)

    def live(self) -> None:
        """From now on clients sleep and wake, those of a kind that does."""
        if self._own.sleeps_s is not None:
            for agent in self._agents:
                self._stay_awake(agent, self._random.uniform(0, self._own.awake_s))

    def _stay_awake(self, agent: UserAgent, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._sleep, agent)

    def _sleep(self, agent: UserAgent) -> None:
        """To sleep, if it is registered; and once more, some time later."""
        user, sleeps_s = agent.account.user, self._own.sleeps_s or 0.0
        if user in self._registered:
            self._asleep.add(user)
            agent.drop(away_s=sleeps_s)
        self._stay_awake(agent, sleeps_s + self._own.awake_s * self._random.uniform(0.5, 1.5))

    async def stop(self) -> None:
        await asyncio.gather(*(agent.stop() for agent in self._agents))

    def _on_event(self, user: str, event: Event) -> None:
        told = self._told(user, event.kind)
        if told is not None:
            value = {"client": user, "kind": self._own.name, "transport": self._own.transport, "event": told}
            self._recorder.op("client", "ok", event.time_ns, {**value, **event.detail})

    def _told(self, user: str, kind: str) -> str | None:
        """What a client's event is called in the history, and who is registered and asleep after it."""
        if kind == "registered":
            self._registered.add(user)
            self._asleep.discard(user)
        elif kind == "flow_down" and user in self._asleep:
            self._registered.discard(user)
            return "asleep"
        elif kind in ("flow_down", "register_failed"):
            self._registered.discard(user)
            self._asleep.discard(user)
        elif kind == "flow_failed":
            if user not in self._asleep:
                return None  # it is lost already
            self._asleep.discard(user)
            return "flow_down"
        return kind if kind in TOLD else None


async def _populate(args: argparse.Namespace) -> None:
    stop = open_loop.stop_on_signals()
    recorder = Recorder(args.out, process=args.process, f="client")
    population = Population(
        own=kind(args.kind),
        to=args.to,
        domain=args.domain,
        password=os.environ.get(PASSWORD, ""),
        local_ip=args.local or local_address_towards(args.to),
        users=range(args.first, args.first + args.count),
        recorder=recorder,
    )
    try:
        await population.register()
        population.live()
        async for _ in open_loop.beats(stop, every_s=BEAT_S):
            population.beat()
    finally:
        await open_loop.end_all([population.stop], recorder=recorder)


def main() -> None:
    parser = arguments.parser("harness.clients.population", __doc__, count="clients", first="first extension")
    open_loop.main(_populate(parser.parse_args()))


if __name__ == "__main__":
    main()
