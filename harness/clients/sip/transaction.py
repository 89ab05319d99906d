"""Transactions (RFC 3261 section 17): what a client repeats, what it waits for, and what it answers again.

Callbacks on timers; no tasks, so that tests run them on virtual time. Over streams and WebSocket nothing is repeated
(17.1.1.2); ends are the same everywhere. The 2xx of an INVITE is the session's business (13.2.2.4, 13.3.1.4).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.clients.sip.message import Message

T1_S = 0.5
"""Round-trip time estimate, RFC 3261 17.1.1.1."""

T2_S = 4.0
"""The longest interval between repetitions of a non-INVITE request or an INVITE's answer."""

T4_S = 5.0
TIMEOUT = 64
"""Timers B, F, H, J: this many T1."""

MOST_SERVED = 500
"""Server transactions remembered at most; the oldest is forgotten first."""


class Timers(Protocol):
    """An event loop, as far as transactions need one."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...


@dataclass(kw_only=True)
class ClientTransaction:
    """One request of ours until its final answer. `ended` is called once: with the final answer, or None when none came
    in 64*T1; `provisional` for each 1xx."""

    request: bytes
    method: str
    reliable: bool
    timers: Timers
    write: Callable[[bytes], object]
    ended: Callable[[Message | None], None]
    provisional: Callable[[Message], None] = lambda message: None
    ack: Callable[[Message], bytes] | None = None
    t1_s: float = T1_S
    sends: int = 0
    over: bool = False
    _proceeding: bool = False
    _repeat: Any = None
    _give_up: Any = None

    def start(self) -> None:
        self._give_up = self.timers.call_later(TIMEOUT * self.t1_s, self._timed_out)
        self._send(self.t1_s)

    def answered(self, message: Message) -> None:
        """An answer to this request. A final one that comes again is acknowledged again (17.1.1.2)."""
        if message.code < 200:
            if not self.over:
                self._on_provisional(message)
            return
        if self.method == "INVITE" and message.code >= 300 and self.ack is not None:
            self.write(self.ack(message))
        if not self.over:
            self._end(message)

    def abandon(self) -> None:
        """The path is gone: nobody will answer."""
        if not self.over:
            self._end(None)

    def _on_provisional(self, message: Message) -> None:
        if self.method == "INVITE":
            self._cancel(self._repeat)
            if not self._proceeding and message.code > 100:
                self._cancel(self._give_up)  # ringing may take as long as it likes (timer C is the proxy's)
        self._proceeding = True
        self.provisional(message)

    def _send(self, next_s: float) -> None:
        if self.over:
            return
        self.sends += 1
        self.write(self.request)
        if not self.reliable:
            if self.method != "INVITE":
                next_s = T2_S if self._proceeding else min(next_s, T2_S)
            self._repeat = self.timers.call_later(next_s, self._send, 2 * next_s)

    def _timed_out(self) -> None:
        if not self.over:
            self._end(None)

    def _end(self, message: Message | None) -> None:
        self.over = True
        self._cancel(self._repeat)
        self._cancel(self._give_up)
        self.ended(message)

    @staticmethod
    def _cancel(timer: Any) -> None:
        if timer is not None:
            timer.cancel()


@dataclass(kw_only=True)
class ServerTransaction:
    """One request of theirs: repeated, it gets the answer it got. An INVITE's answer is repeated until its ACK."""

    method: str
    reliable: bool
    timers: Timers
    write: Callable[[bytes], object]
    unacknowledged: Callable[[], None] = lambda: None
    t1_s: float = T1_S
    last: bytes | None = None
    acknowledged: bool = False
    _repeat: Any = None
    _waited_s: float = 0.0

    def answer(self, data: bytes, *, code: int) -> None:
        self.last = data
        self.write(data)
        if self.method == "INVITE" and code >= 200 and (not self.reliable or code < 300):
            self._waited_s = 0.0  # a 2xx is repeated over streams, too (13.3.1.4)
            self._repeat = self.timers.call_later(self.t1_s, self._again, self.t1_s)

    def repeated(self) -> None:
        if self.last is not None and not self.acknowledged:
            self.write(self.last)

    def ack(self) -> None:
        self.acknowledged = True
        self.stop()

    def stop(self) -> None:
        if self._repeat is not None:
            self._repeat.cancel()

    def _again(self, waited_s: float) -> None:
        self._waited_s += waited_s
        if self.acknowledged or self.last is None:
            return
        if self._waited_s >= TIMEOUT * self.t1_s:
            self.unacknowledged()
            return
        self.write(self.last)
        next_s = min(2 * waited_s, T2_S)
        self._repeat = self.timers.call_later(next_s, self._again, next_s)


@dataclass(kw_only=True)
class Layer:
    """All transactions of one client, by what identifies them: the branch, and the method (17.1.3, 17.2.3)."""

    asked: dict[tuple[str, str], ClientTransaction] = field(default_factory=dict)
    served: OrderedDict[tuple[str, str], ServerTransaction] = field(default_factory=OrderedDict)

    def response(self, message: Message) -> bool:
        """Hand an answer to the request it belongs to; False when there is none."""
        transaction = self.asked.get((message.branch, message.cseq[1]))
        if transaction is None:
            return False
        transaction.answered(message)
        return True

    def find(self, message: Message) -> ServerTransaction | None:
        """The transaction of a request that was seen before; an ACK of a refusal belongs to its INVITE."""
        method = "INVITE" if message.method == "ACK" else message.method
        return self.served.get((message.branch, method))

    def serve(self, message: Message, transaction: ServerTransaction) -> None:
        self.served[message.branch, message.method] = transaction
        while len(self.served) > MOST_SERVED:
            self.served.popitem(last=False)[1].stop()

    def abandon(self) -> None:
        """The path is gone: every request of ours ends unanswered."""
        waiting, self.asked = list(self.asked.values()), {}
        for transaction in waiting:
            transaction.abandon()

    def stop(self) -> None:
        self.abandon()
        for served in self.served.values():
            served.stop()
        self.served.clear()
