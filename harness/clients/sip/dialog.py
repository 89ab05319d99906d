"""A dialog (RFC 3261 section 12) from the side of the client that opened it, and the transactions inside it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from harness.clients.sip.message import Header, Message, request, uri_of
from harness.clients.sip.transport import VIA, Address
from harness.results import TransportName

_LOOSE = re.compile(r";\s*lr\s*(?:[;=?]|$)", re.IGNORECASE)


def new_branch() -> str:
    """A transaction's identifier (RFC 3261 8.1.1.7)."""
    return f"z9hG4bK{secrets.token_hex(8)}"


def via(local: Address, branch: str, *, transport: TransportName = "udp") -> Header:
    """The Via of a request sent from `local`, with rport (RFC 3581)."""
    return "Via", f"SIP/2.0/{VIA[transport]} {local[0]}:{local[1]};branch={branch};rport"


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """What a client needs to build the requests of a call before and after its dialog exists.

    `from_` and `to` are header values as sent in the INVITE: From with its tag, To without.
    """

    local: Address
    uri: str
    from_: str
    to: str
    call_id: str
    contact: str
    transport: TransportName = "udp"
    extra: tuple[Header, ...] = ()

    def invite(self, *, cseq: int, branch: str, body: bytes, headers: Iterable[Header] = ()) -> bytes:
        own = [("Contact", self.contact), ("Content-Type", "application/sdp")]
        return self._request("INVITE", cseq=cseq, branch=branch, headers=[*own, *self.extra, *headers], body=body)

    def cancel(self, *, cseq: int, branch: str) -> bytes:
        """CANCEL is a request of its own with the INVITE's branch and number (RFC 3261 9.1)."""
        return self._request("CANCEL", cseq=cseq, branch=branch)

    def ack_refusal(self, final: Message, *, branch: str) -> bytes:
        """The ACK of a final answer of 300 and up belongs to the INVITE's transaction (RFC 3261 17.1.1.3)."""
        return self._request("ACK", cseq=final.cseq[0], branch=branch, to=final.get("to"))

    def established(self, ok: Message) -> Dialog:
        """The dialog that a 2xx makes (RFC 3261 12.1.2)."""
        contact = ok.get("contact")
        return Dialog(
            local=self.local,
            transport=self.transport,
            target=uri_of(contact) if contact else self.uri,
            routes=tuple(reversed(ok.all("record-route"))),
            from_=self.from_,
            to=ok.get("to") or self.to,
            call_id=self.call_id,
            invite_cseq=ok.cseq[0],
        )

    def _request(
        self,
        method: str,
        *,
        cseq: int,
        branch: str,
        to: str | None = None,
        headers: Iterable[Header] = (),
        body: bytes = b"",
    ) -> bytes:
        fixed = [
            via(self.local, branch, transport=self.transport),
            ("Max-Forwards", "70"),
            ("From", self.from_),
            ("To", to or self.to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
        ]
        return request(method, self.uri, [*fixed, *headers], body)


@dataclass(frozen=True, kw_only=True)
class Dialog:
    """An established dialog; requests take their route from the 2xx (loose routing, RFC 3261 12.2.1.1)."""

    local: Address
    target: str
    routes: tuple[str, ...]
    from_: str
    to: str
    call_id: str
    invite_cseq: int
    transport: TransportName = "udp"

    def ack(self, *, headers: Iterable[Header] = ()) -> bytes:
        """The ACK of a 2xx: the INVITE's number, a branch of its own, the INVITE's credentials (RFC 3261 13.2.2.4)."""
        return self.request("ACK", cseq=self.invite_cseq, headers=headers)

    def request(self, method: str, *, cseq: int, headers: Iterable[Header] = (), body: bytes = b"") -> bytes:
        fixed = [
            via(self.local, new_branch(), transport=self.transport),
            *(("Route", route) for route in self.routes),
            ("Max-Forwards", "70"),
            ("From", self.from_),
            ("To", self.to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
        ]
        return request(method, self.target, [*fixed, *headers], body)


def way(target: str, routes: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Request-URI and Route of a request along a route set (RFC 3261 12.2.1.1): a first router that is not loose gets
    the request addressed to it, and the target goes last."""
    if not routes:
        return target, ()
    first = uri_of(routes[0])
    if _LOOSE.search(first):
        return target, routes
    return first, (*routes[1:], f"<{target}>")
