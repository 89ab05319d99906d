"""Digest authentication for SIP (RFC 3261 section 22, RFC 7616, RFC 8760): MD5, SHA-256, with and without qop=auth."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from harness.clients.sip.message import Header, Message

_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')

HASHES: dict[str, Callable[[bytes], str]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
}
_ANSWERS = {"www-authenticate": "Authorization", "proxy-authenticate": "Proxy-Authorization"}
_DEMANDS = {401: "www-authenticate", 407: "proxy-authenticate"}


class BadChallenge(ValueError):
    """A 401 or 407 that this client can't answer."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Who a client says it is. The password is kept out of every representation."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """What a server demands; `header` is the name of the header that answers it."""

    header: str
    realm: str
    nonce: str
    algorithm: str
    qop: bool
    opaque: str | None
    stale: bool


def challenge_of(response: Message) -> Challenge:
    """The first challenge of a 401 or 407 with an algorithm known here; `BadChallenge` if there is none."""
    if response.code not in _DEMANDS:
        raise BadChallenge(f"a {response.code} is no challenge")
    asked = _DEMANDS[response.code]
    for challenge in challenges_of(response):
        if challenge.header == _ANSWERS[asked]:
            return challenge
    raise BadChallenge(f"no {asked} that can be answered")


def challenges_of(response: Message) -> list[Challenge]:
    """What a 401 or 407 demands, one challenge per header and realm: the first whose algorithm is known here, because
    servers put first what they like best (RFC 8760 2.4). A proxy may hand on several at once, of either kind (RFC 3261
    22.3)."""
    found: dict[tuple[str, str], Challenge] = {}
    for name, value in response.headers:
        if name in _ANSWERS and (challenge := _challenge(_ANSWERS[name], value)) is not None:
            found.setdefault((challenge.header, challenge.realm), challenge)
    return list(found.values()) if response.code in _DEMANDS else []


def _challenge(header: str, value: str) -> Challenge | None:
    scheme, _, rest = value.strip().partition(" ")
    given = {m[1].lower(): _plain(m[2]) if m[2] is not None else m[3] for m in _PARAMETER.finditer(rest)}
    algorithm = given.get("algorithm", "MD5").upper()
    if scheme.lower() != "digest" or algorithm not in HASHES or "realm" not in given or "nonce" not in given:
        return None
    offered = [q.strip().lower() for q in given.get("qop", "").split(",") if q.strip()]
    if offered and "auth" not in offered:
        return None
    return Challenge(
        header=header,
        realm=given["realm"],
        nonce=given["nonce"],
        algorithm=algorithm,
        qop=bool(offered),
        opaque=given.get("opaque"),
        stale=given.get("stale", "").lower() == "true",
    )


def answer(
    challenge: Challenge, credentials: Credentials, *, method: str, uri: str, count: int = 1, cnonce: str | None = None
) -> Header:
    """The header that answers `challenge`; `count` is how often its nonce was used, this time included (nc)."""
    digest = HASHES[challenge.algorithm]
    cnonce = cnonce or secrets.token_hex(8)
    secret = digest(f"{credentials.user}:{challenge.realm}:{credentials.password}".encode())
    asked = digest(f"{method}:{uri}".encode())
    if challenge.qop:
        proof = digest(f"{secret}:{challenge.nonce}:{count:08x}:{cnonce}:auth:{asked}".encode())
    else:
        proof = digest(f"{secret}:{challenge.nonce}:{asked}".encode())
    parts = [
        f'username="{_quoted(credentials.user)}"',
        f'realm="{_quoted(challenge.realm)}"',
        f'nonce="{_quoted(challenge.nonce)}"',
        f'uri="{_quoted(uri)}"',
        f'response="{proof}"',
        f"algorithm={challenge.algorithm}",
    ]
    if challenge.qop:
        parts += ["qop=auth", f"nc={count:08x}", f'cnonce="{cnonce}"']
    if challenge.opaque is not None:
        parts.append(f'opaque="{_quoted(challenge.opaque)}"')
    return challenge.header, "Digest " + ", ".join(parts)


def _plain(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted)


def _quoted(plain: str) -> str:
    return plain.replace("\\", "\\\\").replace('"', '\\"')
