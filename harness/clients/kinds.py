"""The kinds of client the vendor promises to keep: each a profile of transport, keep-alive, reconnect and expiry.

Values are those such clients ship with, as far as their makers document them; RFC sections where a standard says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.clients.sip.agent import Behaviour
from harness.clients.sip.reconnect import Backoff
from harness.results import TransportName


@dataclass(frozen=True, kw_only=True)
class ClientKind:
    """How one kind of client behaves towards the PBX.

    `expires_s` is what it asks for when it registers; `keepalive_s` how often it shows that it is there (CRLF on
    streams, RFC 5626 3.5.1); `sleeps_s` how long a mobile app is suspended at a time, without a flow, and `awake_s` how
    long it is awake in between (a client in a call stays awake); `watch_s` how long its calls are watched after a
    failover: browsers lose audio late.
    """

    name: str
    summary: str
    transport: TransportName
    expires_s: int
    keepalive_s: float | None = None
    sleeps_s: float | None = None
    awake_s: float = 30.0
    watch_s: float = 3.0
    module: str = "harness.clients.phones"

    @property
    def is_real(self) -> bool:
        """Whether a program of the client image is this client, not a user agent of ours."""
        return self.module != "harness.clients.phones"

    @property
    def behaviour(self) -> Behaviour:
        """What a user agent of this kind is told. Softphones try again after 2 s and double, the RFC's 30 s is theirs
        to choose (RFC 5626 4.5: configurable)."""
        return Behaviour(
            transport=self.transport,
            expires_s=self.expires_s,
            keepalive_s=self.keepalive_s,
            backoff=Backoff(base_s=2.0, max_s=30.0),
        )


KINDS: dict[str, ClientKind] = {
    kind.name: kind
    for kind in (
        ClientKind(name="ip_phone", summary="desk phone on UDP", transport="udp", expires_s=3600),
        ClientKind(
            name="desktop", summary="softphone on TLS, connected all day", transport="tls", expires_s=600,
            keepalive_s=30.0,
        ),
        ClientKind(
            name="mobile", summary="app on TLS that sleeps and wakes", transport="tls", expires_s=300,
            keepalive_s=30.0, sleeps_s=5.0,
        ),
        ClientKind(
            name="webrtc", summary="browser on secure WebSocket, DTLS-SRTP", transport="wss", expires_s=120,
            watch_s=45.0, module="harness.clients.browser",
        ),
        ClientKind(
            name="baresip", summary="a real desktop softphone, baresip on TLS", transport="tls", expires_s=600,
            module="harness.clients.softphone",
        ),
    )
}  # fmt: skip

OWN_KINDS = [name for name, one in KINDS.items() if not one.is_real]
"""The kinds that user agents of ours play."""


def kind(name: str) -> ClientKind:
    """The kind with this name; `ValueError` that names all where there is none."""
    if name not in KINDS:
        raise ValueError(f"no kind of client is called {name!r}; there are {', '.join(KINDS)}")
    return KINDS[name]
