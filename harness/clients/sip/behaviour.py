"""Who a client is, and how it behaves towards the PBX. Plain data; harness/clients/kinds.py has the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.clients.sip.reconnect import Backoff
from harness.clients.sip.transaction import T1_S
from harness.results import TransportName

Keepalive = Literal["none", "crlf", "options"]


@dataclass(frozen=True, kw_only=True)
class Account:
    """An extension and its domain; the password is kept out of every representation."""

    user: str
    domain: str
    password: str = field(repr=False)

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@{self.domain}"


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a kind of client behaves.

    `keepalive` every `keepalive_s`: "crlf" is RFC 5626 3.5.1 (a WebSocket ping on WSS; on UDP nothing answers it),
    "options" a request that notices a dead PBX on UDP, too. `refresh_on_reconnect` re-INVITEs in every call once the
    client is registered anew, to refresh its target - off where the fate of calls without help is measured.
    `contact_as_seen` registers the address that the PBX saw (`received` and `rport`, RFC 3581), as phones behind a NAT
    may. `session_expires_s` asks for a session timer (RFC 4028).
    """

    transport: TransportName
    expires_s: int = 3600
    keepalive: Keepalive = "crlf"
    keepalive_s: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    refresh_on_reconnect: bool = False
    session_expires_s: int | None = None
    timer_t1_s: float = T1_S
    contact_as_seen: bool = False

    def __post_init__(self) -> None:
        if self.expires_s < 1 or self.timer_t1_s <= 0 or (self.keepalive_s is not None and self.keepalive_s <= 0):
            raise ValueError("expires_s, timer_t1_s and keepalive_s are above 0")
        if self.session_expires_s is not None and self.session_expires_s < 90:
            raise ValueError("a session expires after 90 s or more (RFC 4028 5)")

    @property
    def reliable(self) -> bool:
        """Whether the transport repeats what is lost, so that nobody else has to."""
        return self.transport != "udp"
