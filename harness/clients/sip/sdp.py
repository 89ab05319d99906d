"""The little SDP (RFC 8866) that a G.711 call needs."""

from __future__ import annotations

import re

from harness.clients.sip.transport import Address

_CONNECTION = re.compile(rb"^c=IN IP4 ([0-9.]+)", re.MULTILINE)
_AUDIO = re.compile(rb"^m=audio ([0-9]+)(?:/[0-9]+)? \S+(.*)$", re.MULTILINE)


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
