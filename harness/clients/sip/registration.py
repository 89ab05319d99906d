"""REGISTER with digest (RFC 3261 section 10): once, before anything is measured, so bounded retries are fair here."""

from __future__ import annotations

import secrets
import select
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.clients.sip.binding import accepted
from harness.clients.sip.dialog import new_branch, via
from harness.clients.sip.digest import BadChallenge, Credentials, answer, challenge_of
from harness.clients.sip.message import BadMessage, Header, Message, parse, request, uri_of
from harness.clients.sip.transport import Address, UdpSocket
from harness.clock import NS_PER_S, now_ns
from harness.errors import InfrastructureError

ATTEMPTS = 5
WAIT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A binding the registrar accepted: what its answer acknowledges (`binding.accepted`), and when it came."""

    contact: str
    bound: Mapping[str, Any]
    accepted_ns: int


def register(
    udp: UdpSocket, *, to: Address, domain: str, credentials: Credentials, expires_s: int = 3600
) -> Registered:
    """Register the address of `udp` for `credentials.user`; `InfrastructureError` with the last answer if it fails."""
    binding = _Binding(udp=udp, to=to, domain=domain, user=credentials.user, expires_s=expires_s)
    authorization: tuple[Header, ...] = ()
    last = "nothing came back"
    for cseq in range(1, ATTEMPTS + 1):
        reply = binding.ask(cseq, authorization)
        if reply is None:
            continue
        last = f"{reply.code} {reply.reason}"
        if 200 <= reply.code < 300:
            bound = accepted(reply, uri_of(binding.contact), expires_s)
            return Registered(contact=binding.contact, bound=bound, accepted_ns=now_ns())
        if reply.code in (401, 407):
            try:
                authorization = (answer(challenge_of(reply), credentials, method="REGISTER", uri=f"sip:{domain}"),)
            except BadChallenge as error:
                last = f"{last}: {error}"
    raise InfrastructureError(
        f"{credentials.user}@{domain} could not register at {to[0]}:{to[1]} in {ATTEMPTS} attempts: {last}"
    )


@dataclass(frozen=True, kw_only=True)
class _Binding:
    """The binding asked for; every attempt to get it is one transaction of the same call."""

    udp: UdpSocket
    to: Address
    domain: str
    user: str
    expires_s: int
    call_id: str = field(default_factory=lambda: secrets.token_hex(8))
    tag: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def contact(self) -> str:
        return f"<sip:{self.user}@{self.udp.local[0]}:{self.udp.local[1]}>"

    def ask(self, cseq: int, headers: tuple[Header, ...]) -> Message | None:
        """One REGISTER and its final answer, None after `WAIT_S` or an ICMP error."""
        branch = new_branch()
        fixed = [
            via(self.udp.local, branch),
            ("Max-Forwards", "70"),
            ("From", f"<sip:{self.user}@{self.domain}>;tag={self.tag}"),
            ("To", f"<sip:{self.user}@{self.domain}>"),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} REGISTER"),
            ("Contact", self.contact),
            ("Expires", str(self.expires_s)),
        ]
        self.udp.send(request("REGISTER", f"sip:{self.domain}", [*fixed, *headers]), self.to)
        until_ns = now_ns() + round(WAIT_S * NS_PER_S)
        while (left_s := (until_ns - now_ns()) / NS_PER_S) > 0:
            select.select([self.udp], [], [], left_s)
            for datagram in self.udp.receive():
                try:
                    message = parse(datagram.data)
                except BadMessage:
                    continue
                if message.code >= 200 and message.branch == branch:
                    return message
            if any(True for _ in self.udp.refusals()):
                select.select([], [], [], min(left_s, WAIT_S / 5))  # a closed port: the PBX may be about to listen
                return None
        return None
