"""Transactions (RFC 3261 section 17, RFC 6026): what a client repeats, what it waits for, and what it answers again.

Callbacks on timers; no tasks, so that tests run them on virtual time. Over streams and WebSocket nothing is repeated
but the 2xx of an INVITE (13.3.1.4); the ends are the same everywhere. The ACK of a 2xx is the session's business
(13.2.2.4). Timers go by their letters in RFC 3261 table 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from harness.clients.sip.message import Message

T1_S = 0.5
"""Round-trip time estimate, RFC 3261 17.1.1.1."""

T2_S = 4.0
"""The longest interval between repetitions of a non-INVITE request or an INVITE's answer."""

T4_S = 5.0
"""How long a message may be on its way in the network."""

TIMEOUT = 64
"""Timers B, F, H, J, L: this many T1."""

C_S = 180.0
"""An INVITE that has a provisional answer is given up this long after the last one: timer C, which is a proxy's
(16.6), taken by a client that would otherwise wait for ever for a PBX that is gone."""

D_S = 32.0
"""How long a refusal may come again over UDP."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    """An event loop, as far as transactions need one."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer: ...


def _ignore(*_: object) -> None:
    """Nobody asked to be told."""


@dataclass(kw_only=True, slots=True)
class ClientTransaction:
    """One request of ours until its final answer. `ended` is called once: with the final answer and when it came, or
    None when none came in 64*T1; `provisional` for each 1xx; `gone` when it need not be remembered any more."""

    request: bytes
    method: str
    reliable: bool
    timers: Timers
    write: Callable[[bytes], object]
    ended: Callable[[Message | None, int | None], None]
    provisional: Callable[[Message], None] = _ignore
    ack: Callable[[Message], bytes] | None = None
    gone: Callable[[], None] = _ignore
    t1_s: float = T1_S
    sends: int = 0
    over: bool = False
    proceeding: bool = False
    _repeat: Timer | None = None
    _limit: Timer | None = None

    def start(self) -> None:
        """Send, and again (timers A, E) until something comes or time is up (B, F)."""
        self._limit = self.timers.call_later(TIMEOUT * self.t1_s, self._end, None, None)
        self._send(self.t1_s)

    def answered(self, message: Message, received_ns: int) -> None:
        """An answer to this request. A refusal of an INVITE is acknowledged each time it comes (17.1.1.2)."""
        if message.code < 200:
            if not self.over:
                self._on_provisional(message)
            return
        if self.method == "INVITE" and message.code >= 300 and self.ack is not None:
            self.write(self.ack(message))
        if not self.over:
            self._end(message, received_ns)

    def abandon(self) -> None:
        """The path is gone, or nobody waits any more: no answer counts."""
        if not self.over:
            self._end(None, None)

    def _on_provisional(self, message: Message) -> None:
        self.proceeding = True
        if self.method == "INVITE":
            _cancel(self._repeat)
            _cancel(self._limit)
            self._limit = self.timers.call_later(C_S, self._end, None, None)
        self.provisional(message)

    def _send(self, next_s: float) -> None:
        self.sends += 1
        self.write(self.request)
        if self.reliable or self.over:
            return
        if self.method != "INVITE":
            next_s = T2_S if self.proceeding else min(next_s, T2_S)
        self._repeat = self.timers.call_later(next_s, self._send, 2 * next_s)

    def _end(self, message: Message | None, received_ns: int | None) -> None:
        self.over = True
        _cancel(self._repeat)
        _cancel(self._limit)
        if message is None or self.reliable:
            self.gone()
        elif self.method != "INVITE":
            self._limit = self.timers.call_later(T4_S, self.gone)  # timer K
        elif message.code >= 300:
            self._limit = self.timers.call_later(D_S, self.gone)  # timer D
        else:
            self.gone()  # a repeated 2xx is the session's
        self.ended(message, received_ns)

    def forget(self) -> None:
        """No timer of it fires any more."""
        self.over = True
        _cancel(self._repeat)
        _cancel(self._limit)


@dataclass(kw_only=True, slots=True)
class ServerTransaction:
    """One request of theirs: repeated, it gets the answer it got. A final answer to an INVITE is repeated until its ACK
    (timers G and H); `unacknowledged` is called when none comes. `gone` when it need not be remembered any more."""

    method: str
    reliable: bool
    timers: Timers
    write: Callable[[bytes], object]
    unacknowledged: Callable[[], None] = _ignore
    gone: Callable[[], None] = _ignore
    t1_s: float = T1_S
    last: bytes = b""
    code: int = 0
    acknowledged: bool = False
    _repeat: Timer | None = None
    _limit: Timer | None = None

    @property
    def final(self) -> bool:
        return self.code >= 200

    def answer(self, data: bytes, *, code: int) -> None:
        """A provisional answer, or the final one; what comes after a final one is not sent."""
        if self.final:
            return
        self.last, self.code = data, code
        self.write(data)
        if not self.final:
            return
        if self.method != "INVITE":
            self._linger(0.0 if self.reliable else TIMEOUT * self.t1_s)  # timer J
        elif code < 300 or not self.reliable:
            self._repeat = self.timers.call_later(self.t1_s, self._again, self.t1_s)
            self._limit = self.timers.call_later(TIMEOUT * self.t1_s, self._unheard)  # timer H
        else:
            self._linger(TIMEOUT * self.t1_s)  # timer H

    def repeated(self) -> None:
        """The request came again."""
        if self.last and not (self.acknowledged or (self.method == "INVITE" and 200 <= self.code < 300)):
            self.write(self.last)  # a 2xx has its own repetition (RFC 6026 7.1)

    def ack(self) -> None:
        if self.method == "INVITE" and self.final and not self.acknowledged:
            self.acknowledged = True
            self.forget()
            late_s = TIMEOUT * self.t1_s if self.code < 300 else T4_S  # timers L and I
            self._linger(0.0 if self.reliable and self.code >= 300 else late_s)

    def forget(self) -> None:
        """No timer of it fires any more."""
        _cancel(self._repeat)
        _cancel(self._limit)

    def _linger(self, seconds: float) -> None:
        if seconds:
            self._limit = self.timers.call_later(seconds, self.gone)
        else:
            self.gone()

    def _again(self, waited_s: float) -> None:
        self.write(self.last)
        next_s = min(2 * waited_s, T2_S)
        self._repeat = self.timers.call_later(next_s, self._again, next_s)

    def _unheard(self) -> None:
        self.forget()
        self.gone()
        self.unacknowledged()


def _cancel(timer: Timer | None) -> None:
    if timer is not None:
        timer.cancel()
