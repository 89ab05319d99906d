"""What a user agent does not do, and how it says so (RFC 3261 section 8.2). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.clients.sip.message import Header, Message
from harness.clients.sip.session import ALLOW

KNOWN = frozenset(("INVITE", "CANCEL", "BYE", "OPTIONS", "UPDATE", "REFER", "NOTIFY", "INFO", "MESSAGE"))
EXTENSIONS = frozenset(("timer",))
"""Option tags that a Require may have (8.2.2.3)."""

_SDP = "application/sdp"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A final answer that says why not."""

    code: int
    reason: str
    headers: Sequence[Header] = ()


def of(message: Message, *, merged: bool) -> Refusal | None:
    """Why a request is refused whatever it is about, in the RFC's order; None when it is not. `merged`: the same
    request has come another way."""
    if message.method not in KNOWN:
        return Refusal(code=405, reason="Method Not Allowed", headers=[ALLOW])
    if message.uri.partition(":")[0].lower() not in ("sip", "sips"):
        return Refusal(code=416, reason="Unsupported URI Scheme")
    if merged:
        return Refusal(code=482, reason="Loop Detected")
    unknown = [tag for tag in message.all("require") if tag.lower() not in EXTENSIONS]
    if unknown and message.method != "CANCEL":
        return Refusal(code=420, reason="Bad Extension", headers=[("Unsupported", ", ".join(unknown))])
    if message.method not in ("INVITE", "UPDATE"):
        return None
    kind = (message.get("content-type") or "").partition(";")[0].strip().lower()
    if message.body and kind != _SDP:
        return Refusal(code=415, reason="Unsupported Media Type", headers=[("Accept", _SDP)])
    accepted = [value.partition(";")[0].strip().lower() for value in message.all("accept")]
    if accepted and not {_SDP, "application/*", "*/*"} & set(accepted):
        return Refusal(code=406, reason="Not Acceptable")
    return None
