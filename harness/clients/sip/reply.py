"""What came of a request, and what happened to a client: the plain data that user agents hand out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.clients.sip.message import Message


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The final answer to a request, challenges answered on the way; `code` None when none came. Times are
    CLOCK_MONOTONIC, of the first sending and of the answer (or of giving up); `sends` counts repetitions."""

    code: int | None
    reason: str
    sent_ns: int
    received_ns: int
    sends: int = 1
    message: Message | None = field(default=None, repr=False)

    @classmethod
    def none(cls, *, sent_ns: int, after_ns: int, why: str = "no answer", sends: int = 0) -> Reply:
        """The answer that did not come."""
        return cls(code=None, reason=why, sent_ns=sent_ns, received_ns=max(sent_ns, after_ns), sends=sends)

    @property
    def ok(self) -> bool:
        return self.code is not None and 200 <= self.code < 300

    @property
    def took_ns(self) -> int:
        return self.received_ns - self.sent_ns

    @property
    def took_ms(self) -> float:
        return round(self.took_ns / 1e6, 3)

    def __str__(self) -> str:
        return self.reason if self.code is None else f"{self.code} {self.reason}".strip()


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a client: flow_up, flow_down, flow_failed, registered, register_failed."""

    time_ns: int
    kind: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a client answers a call: 2xx with its own session description, or a refusal."""

    code: int = 200
    reason: str = "OK"
    sdp: bytes = b""
