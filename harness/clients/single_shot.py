"""Reachability by single shots: one request per turn, never repeated, and its answer within a deadline or not at all.

`SingleShot` is the probe that `open_loop.run` drives. What is asked is an `Exchange` (OPTIONS, REGISTER), how it gets
there a `Road`: one UDP socket for all attempts, or a connection of its own for each (harness/clients/stream_road.py).
ok: a 2xx within the deadline. fail: any other final answer, an ICMP error, a connection
refused. info: nothing in time; an answer after that is told as `<clock>_late`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from harness.clients import open_loop
from harness.clients.open_loop import Turn
from harness.clients.recorder import Recorder
from harness.clients.road import Road, Send
from harness.clients.sip.dialog import via
from harness.clients.sip.message import BadMessage, Header, Message, parse
from harness.clients.sip.transport import CONTACT, Address, Sent
from harness.clock import NS_PER_S, ms, now_ns
from harness.results import TransportName

REMEMBERED = 10_000
"""Unanswered attempts whose late answer is still recognised."""


@dataclass(frozen=True, kw_only=True)
class Here:
    """Where an attempt is sent from, and the branch of its transaction."""

    transport: TransportName
    address: Address
    branch: str

    @property
    def via(self) -> Header:
        return via(self.address, self.branch, transport=self.transport)

    def contact(self, user: str) -> Header:
        host, port = self.address
        return "Contact", f"<sip:{user}@{host}:{port}{CONTACT[self.transport]}>"


class Exchange(Protocol):
    """What is asked in one attempt. `again` is given each final answer, and says whether it only asks for the same once
    more (a challenge): then `request` is called again. `told` is what a 2xx says that is worth keeping."""

    def request(self, here: Here) -> bytes: ...

    def again(self, reply: Message) -> bool: ...

    def told(self, ok: Message) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What came in and could not be used."""

    bad: int = 0
    stray: int = 0


@dataclass(kw_only=True)
class _Attempt:
    sent_ns: int
    exchange: Exchange
    requests: int = 0
    send: Send | None = None
    local: Address = ("", 0)


class SingleShot:
    """Sends and judges. Needs a running event loop; `exchange` makes what is asked in one attempt."""

    def __init__(
        self,
        *,
        road: Callable[[SingleShot], Road],
        exchange: Callable[[], Exchange],
        deadline_s: float,
        recorder: Recorder,
    ) -> None:
        self.run = secrets.token_hex(4)
        self.counts = Counts()
        self._branch_n = re.compile(rf"z9hG4bK-{self.run}-(\d+)-(\d+)")
        self._deadline_ns = round(deadline_s * NS_PER_S)
        self._exchange = exchange
        self._recorder = recorder
        self._pending: dict[int, _Attempt] = {}
        self._expired: dict[int, int] = {}
        self._loop = asyncio.get_running_loop()
        self._road = road(self)

    @property
    def idle(self) -> bool:
        return not self._pending

    def send(self, turn: Turn) -> None:
        n, began_ns = turn.n, now_ns()
        attempt = self._pending[n] = _Attempt(sent_ns=began_ns, exchange=self._exchange())
        told: list[Sent] = []

        def started(n: int, local: Address, send: Send) -> None:
            if n in self._pending:
                attempt.send, attempt.local = send, local
                sent = self._ask(n, attempt)
                told.append(sent)

        self._road.begin(n, started=started, failed=self.failed)
        first = told[0] if told else None
        attempt.sent_ns = first.before_ns if first else began_ns
        self._recorder.invoke(attempt.sent_ns, turn.value() | ({"send_ms": first.took_ms} if first else {}))
        if first and first.error:
            self.failed(n, first.after_ns, f"not sent: {first.error}")
            return
        open_loop.call_at_ns(self._loop, attempt.sent_ns + self._deadline_ns, self._expire, n)

    def datagram(self, data: bytes, *, received_ns: int, seen_ns: int, reply: Send) -> None:
        try:
            message = parse(data)
        except BadMessage:
            self.counts = Counts(bad=self.counts.bad + 1, stray=self.counts.stray)
            return
        self.message(message, received_ns=received_ns, seen_ns=seen_ns, reply=reply)

    def message(self, message: Message, *, received_ns: int, seen_ns: int, reply: Send) -> None:
        """A message that came in; only answers to attempts of this probe count."""
        found = self._branch_n.fullmatch(message.branch)
        if not message.is_response or not found:
            self.counts = Counts(bad=self.counts.bad, stray=self.counts.stray + 1)
        elif message.code >= 200:
            lag_ms = ms(seen_ns - received_ns)
            self._answered(int(found.group(1)), int(found.group(2)), message, received_ns, lag_ms)

    def unusable(self, bad: int) -> None:
        self.counts = Counts(bad=self.counts.bad + bad, stray=self.counts.stray)

    def refused(self, data: bytes, name: str, received_ns: int) -> None:
        """An ICMP error about a packet of this probe; it names the attempt only where enough of it came back."""
        found = self._branch_n.search(data.decode("utf-8", "replace"))
        n = int(found.group(1)) if found else min(self._pending, default=-1)
        self.failed(n, received_ns, f"ICMP: {name}")

    def failed(self, n: int, at_ns: int, error: str) -> None:
        """An attempt that surely did not succeed."""
        attempt = self._pending.pop(n, None)
        if attempt is not None:
            self._recorder.end("fail", max(at_ns, attempt.sent_ns), {"n": n}, error=error)
            self._road.end(n)

    def close(self) -> None:
        self._road.close()

    def _ask(self, n: int, attempt: _Attempt) -> Sent:
        assert attempt.send is not None
        attempt.requests += 1
        branch = f"z9hG4bK-{self.run}-{n}-{attempt.requests}"
        here = Here(transport=self._road.transport, address=attempt.local, branch=branch)
        return attempt.send(attempt.exchange.request(here))

    def _answered(self, n: int, request: int, message: Message, received_ns: int, lag_ms: float) -> None:
        attempt = self._pending.get(n)
        if attempt is None:
            self._late(n, message, received_ns)
            return
        if request != attempt.requests:
            return
        received_ns = max(received_ns, attempt.sent_ns)
        in_time = received_ns - attempt.sent_ns <= self._deadline_ns
        if in_time and attempt.requests == 1 and attempt.exchange.again(message):
            self._ask(n, attempt)
            return
        del self._pending[n]
        self._road.end(n)
        value = {"n": n, "code": message.code, "latency_ms": ms(received_ns - attempt.sent_ns), "seen_lag_ms": lag_ms}
        if attempt.requests > 1:
            value["requests"] = attempt.requests
        if not in_time:
            self._end_late(n, attempt.sent_ns)
            self._recorder.late(received_ns, value)
        elif message.code < 300:
            self._recorder.end("ok", received_ns, value | attempt.exchange.told(message))
        else:
            self._recorder.end("fail", received_ns, value, error=f"{message.code} {message.reason}".strip())

    def _late(self, n: int, message: Message, received_ns: int) -> None:
        if n in self._expired:
            latency_ms = ms(received_ns - self._expired.pop(n))
            self._recorder.late(received_ns, {"n": n, "code": message.code, "latency_ms": latency_ms})

    def _expire(self, n: int) -> None:
        if n in self._pending:
            self._road.read()  # what the kernel had in time counts, also when this process comes late
        attempt = self._pending.pop(n, None)
        if attempt is not None:
            self._end_late(n, attempt.sent_ns)
            self._road.end(n)
            self._expired[n] = attempt.sent_ns
            if len(self._expired) > REMEMBERED:
                self._expired.pop(next(iter(self._expired)))

    def _end_late(self, n: int, sent_ns: int) -> None:
        error = f"no answer within {self._deadline_ns / NS_PER_S:g} s"
        self._recorder.end("info", sent_ns + self._deadline_ns, {"n": n}, error=error)


def not_used(counts: Counts) -> str | None:
    """What came in and could not be used, in words; None when everything could."""
    return None if counts == Counts() else f"unusable: {counts.bad} bad messages, {counts.stray} stray ones"
