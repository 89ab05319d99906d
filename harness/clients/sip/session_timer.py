"""Session timers (RFC 4028): who refreshes a session, how often, and when it is given up. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.clients.sip.message import Header, Message

MIN_SE_S = 90
"""No session is refreshed more often than half of this (RFC 4028 5)."""

Role = Literal["uac", "uas"]


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """A session expires after `interval_s` without a refresh; `refresher` is a role in the request that agreed it."""

    interval_s: int
    refresher: Role

    def refresh_after_s(self) -> float:
        """When the refresher sends its next request (section 10: half the interval)."""
        return self.interval_s / 2

    def expire_after_s(self) -> float:
        """When the other side gives up: a third of the interval, 32 s at most, before its end."""
        return self.interval_s - min(32.0, self.interval_s / 3)


@dataclass(frozen=True, kw_only=True)
class TooOften:
    """The request is refused with 422 and this Min-SE."""

    min_se_s: int = MIN_SE_S


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What goes into the 2xx, and what was agreed by it; None where the session has no timer."""

    headers: Sequence[Header] = ()
    agreed: Agreed | None = None


def ask(expires_s: int | None, *, refresher: Role | None = None) -> list[Header]:
    """The headers of a request (7.1, 7.4); without an interval of our own we only say that we could."""
    if expires_s is None:
        return [("Supported", "timer")]
    role = f";refresher={refresher}" if refresher else ""
    return [("Supported", "timer"), ("Session-Expires", f"{expires_s}{role}"), ("Min-SE", str(MIN_SE_S))]


def answer(request: Message, *, own_s: int | None) -> Accepted | TooOften:
    """What a server says to a request for a session or its refresh (section 9). `own_s` is what it would like."""
    able = "timer" in [tag.lower() for tag in (*request.all("supported"), *request.all("require"))]
    asked = _session_expires(request)
    if asked is None and own_s is None:
        return Accepted()
    if asked is None:
        interval_s = max(own_s or 0, _seconds(request.get("min-se")) or 0)
        role: Role = "uac" if able else "uas"
    elif asked[0] < MIN_SE_S and able:
        return TooOften()
    else:
        interval_s = max(asked[0], MIN_SE_S)
        role = asked[1] or ("uac" if able else "uas")
    if role == "uac" and not able:
        role = "uas"
    headers: list[Header] = [("Session-Expires", f"{interval_s};refresher={role}")]
    if role == "uac":
        headers.append(("Require", "timer"))
    return Accepted(headers=headers, agreed=Agreed(interval_s=interval_s, refresher=role))


def agreed(ok: Message) -> Agreed | None:
    """What a 2xx agreed to (7.2); without Session-Expires the session has no timer."""
    said = _session_expires(ok)
    return None if said is None else Agreed(interval_s=max(said[0], MIN_SE_S), refresher=said[1] or "uac")


def min_se(refusal: Message | None) -> int | None:
    """The interval that a 422 demands."""
    if refusal is None or refusal.code != 422:
        return None
    return _seconds(refusal.get("min-se"))


def _session_expires(message: Message) -> tuple[int, Role | None] | None:
    value, _, parameters = (message.get("session-expires") or "").partition(";")
    seconds = _seconds(value)
    if seconds is None:
        return None
    found = re.search(r"(?:^|;)\s*refresher\s*=\s*(uac|uas)\b", parameters, re.IGNORECASE)
    return seconds, (("uas" if found[1].lower() == "uas" else "uac") if found else None)


def _seconds(value: str | None) -> int | None:
    text = (value or "").partition(";")[0].strip()
    return int(text) if re.fullmatch("[0-9]{1,7}", text) else None
