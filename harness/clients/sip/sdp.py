"""The little SDP (RFC 8866) that a G.711 call needs."""

from __future__ import annotations

import re
from typing import Literal

from harness.clients.sip.transport import Address

_CONNECTION = re.compile(rb"^c=IN IP4 ([0-9.]+)", re.MULTILINE)
_ORIGIN = re.compile(rb"^(o=\S+ \S+ )[0-9]+( )", re.MULTILINE)
_DIRECTION = re.compile(rb"^a=(sendrecv|sendonly|recvonly|inactive)(?=\r?$)", re.MULTILINE)
_AUDIO = re.compile(rb"^m=audio ([0-9]+)(?:/[0-9]+)? \S+(.*)$", re.MULTILINE)


Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
_WAYS: dict[Direction, tuple[bool, bool]] = {
    "sendrecv": (True, True),
    "sendonly": (True, False),
    "recvonly": (False, True),
    "inactive": (False, False),
}


class BadSdp(ValueError):
    """No audio address in it."""


def describe(local: Address, *, session: str) -> bytes:
    """An offer or answer of PCMU at 20 ms; `session` is its name, which many PBXs pass on."""
    lines = [
        "v=0",
        f"o=- {local[1]} 1 IN IP4 {local[0]}",
        f"s={session}",
        f"c=IN IP4 {local[0]}",
        "t=0 0",
        f"m=audio {local[1]} RTP/AVP 0",
        "a=rtpmap:0 PCMU/8000",
        "a=ptime:20",
        "a=sendrecv",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def audio_address(body: bytes) -> Address:
    """Where the other side wants its audio; `BadSdp` when it names no IPv4 address and port, or refused the audio."""
    audio = _AUDIO.search(body)
    own = _CONNECTION.search(body, audio.end()) if audio else None
    connection = own or _CONNECTION.search(body)
    if audio is None or connection is None:
        raise BadSdp("no audio address")
    port = int(audio.group(1))
    if not 0 < port < 65536:
        raise BadSdp(f"audio port {port}")
    return connection.group(1).decode(), port


def direction(body: bytes) -> Direction:
    """Which way audio is to flow, as the side that describes sees it; both where nothing is said (RFC 8866 6.7)."""
    found = _DIRECTION.search(body)
    said = found[1].decode() if found else "sendrecv"
    return next((way for way in _WAYS if way == said), "sendrecv")


def directed(body: bytes, way: Direction) -> bytes:
    """The same description with another direction."""
    line = b"a=" + way.encode()
    if _DIRECTION.search(body):
        return _DIRECTION.sub(line, body)
    return body + line + b"\r\n" if way != "sendrecv" and body else body


def answering(own: bytes, offer: bytes) -> bytes:
    """Our description as the answer to an offer: we send what they take and take what they send, as far as we want to
    (RFC 3264 6.1)."""
    (send, take), (their_send, their_take) = _WAYS[direction(own)], _WAYS[direction(offer)]
    ways = (send and their_take, take and their_send)
    return directed(own, next(way for way, both in _WAYS.items() if both == ways))


def numbered(body: bytes, version: int) -> bytes:
    """With this version in its origin line: it grows whenever the description changes (RFC 3264 8)."""
    return _ORIGIN.sub(rb"\g<1>%d\g<2>" % version, body, count=1)
