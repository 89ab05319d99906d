"""A user agent (RFC 3261) that measures: registers, keeps itself registered, calls and is called, on any transport.

Unlike the single-shot clocks it behaves as a phone does: it repeats requests on UDP, answers challenges, refreshes its
registration, and when its flow is gone it reconnects with back-off (RFC 5626) and registers again. It never re-INVITEs
by itself but to refresh a session it agreed to refresh (RFC 4028), or where its behaviour says so.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from harness.clients.sip import binding as bindings
from harness.clients.sip.behaviour import Account as Account
from harness.clients.sip.behaviour import Behaviour as Behaviour
from harness.clients.sip.binding import Binding
from harness.clients.sip.exchange import Exchange, new_tag
from harness.clients.sip.flow import Inbox
from harness.clients.sip.message import Header
from harness.clients.sip.reply import Answer as Answer
from harness.clients.sip.reply import Event as Event
from harness.clients.sip.reply import Reply as Reply
from harness.clients.sip.serving import OnCall, Serving
from harness.clients.sip.session import Session as Session
from harness.clients.sip.transport import Address

REFRESHES = 5
"""How often a client that came back re-INVITEs in a call until that is answered."""


class UserAgent:
    """One account on one flow at a time. Needs a running event loop.

    `on_event` hears of its flow and its registration; `on_call` is asked how to answer a call (None: 486 Busy Here).
    """

    def __init__(
        self,
        *,
        account: Account,
        to: Address,
        local_ip: str,
        behaviour: Behaviour,
        on_event: Callable[[Event], None] = lambda event: None,
        on_call: OnCall | None = None,
    ) -> None:
        self.account = account
        self.behaviour = behaviour
        self.exchange = Exchange(account=account, behaviour=behaviour, local_ip=local_ip)
        self._serving = Serving(self.exchange, on_call=on_call)
        self.inbox = Inbox(self._serving.take, self._on_down, on_bad=self._serving.bad)
        self._binding = Binding(
            self.exchange, to=to, inbox=self.inbox, on_event=on_event, came_back=self._refresh_targets
        )

    @property
    def registered(self) -> bool:
        return self._binding.registered

    @property
    def sessions(self) -> list[Session]:
        """The calls that have not ended."""
        return list(self._serving.sessions.values())

    async def start(self) -> None:
        """Come up and stay up; returns when the PBX has accepted the first registration. Bound it: until then it is
        tried for ever."""
        await self._binding.start()

    async def stop(self, *, unregister: bool = False) -> None:
        """At once and without a word: calls are not ended, the binding stays until it expires - unless it is taken back
        first, for which the PBX has a second."""
        self._binding.stop()
        if unregister and self.exchange.up:
            await self._binding.register(expires_s=0, timeout_s=1.0)
        for session in self.sessions:
            session.end("local")
        await self.exchange.stop()

    def drop(self, *, away_s: float = 0.0, local_ip: str | None = None) -> None:
        """Lose the flow, as an app does that is put to sleep for a while or changes its network."""
        if local_ip is not None:
            self.exchange.local_ip = local_ip
        self._binding.lose("dropped by the client", away_s=away_s)

    async def register(self, *, timeout_s: float | None = None) -> Reply:
        """One REGISTER, now."""
        return await self._binding.register(timeout_s=timeout_s)

    async def options(self, uri: str | None = None, *, timeout_s: float | None = None) -> Reply:
        """OPTIONS, to the PBX itself unless `uri` says otherwise."""
        return await bindings.options(self.exchange, uri, timeout_s=timeout_s)

    def call(self, user: str, *, sdp: bytes, headers: Sequence[Header] = ()) -> Session:
        """INVITE an extension; the session's `answered` has the final answer."""
        uri = f"sip:{user}@{self.account.domain}"
        session = Session(
            self.exchange,
            side="caller",
            call_id=secrets.token_hex(10),
            local=f"<{self.account.uri}>;tag={new_tag()}",
            remote=f"<{uri}>",
            target=uri,
            closed=self._serving.remove,
        )
        session.local_sdp = sdp
        self._serving.add(session)
        self.exchange.spawn(session.invite(headers))
        return session

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run beside; it ends with this user agent."""
        self.exchange.spawn(work)

    def _on_down(self, why: str, at_ns: int) -> None:
        self._binding.on_down(why, at_ns)

    def _refresh_targets(self) -> None:
        """After a reconnect the other side has an address of ours that leads nowhere (RFC 3261 12.2)."""
        if self.behaviour.refresh_on_reconnect:
            for session in self.sessions:
                if session.state == "up":
                    self.exchange.spawn(self._refresh_target(session))

    async def _refresh_target(self, session: Session) -> None:
        """Tried again for a while: the other side may come back later than this one."""
        for failures in range(1, REFRESHES):
            if (await session.reinvite()).ok or session.state != "up":
                return
            await asyncio.sleep(self.behaviour.backoff.wait_s(failures, random.random))
