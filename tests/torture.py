"""The messages of RFC 4475 (tests/data/rfc4475.txt), as bytes with what is to become of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data" / "rfc4475.txt"


@dataclass(frozen=True, kw_only=True)
class Torture:
    """`verdict` is "valid", "dropped", or the code a request is answered with."""

    name: str
    verdict: str
    data: bytes


def load() -> list[Torture]:
    """Every message, in the RFC's order."""
    _, *parts = re.split(r"^== (\w+) (\w+)\n", DATA.read_text(), flags=re.MULTILINE)
    return [
        Torture(name=name, verdict=verdict, data=_bytes(text))
        for name, verdict, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def _bytes(text: str) -> bytes:
    text = re.sub(
        r"<allOneLine>\n(.*?)\n</allOneLine>", lambda found: found[1].replace("\n", ""), text, flags=re.DOTALL
    )
    text = re.sub(r"<repeat count=(\d+)>(.*?)</repeat>", lambda found: found[2] * int(found[1]), text)
    text = re.sub(r"^SDP (\S+)(?: (\S+))?\n", lambda found: _sdp(found[1], found[2] or found[1]), text, flags=re.M)
    data = text.replace("\n", "\r\n").encode()
    return re.sub(rb"<hex>([0-9A-F]*)</hex>", lambda found: bytes.fromhex(found[1].decode()), data)


def _sdp(origin: str, connection: str) -> str:
    lines = [
        "v=0",
        f"o=mhandley 29739 7272939 IN IP4 {origin}",
        "s=-",
        f"c=IN IP4 {connection}",
        "t=0 0",
        "m=audio 49217 RTP/AVP 0 12",
        "m=video 3227 RTP/AVP 31",
        "a=rtpmap:31 LPC",
    ]
    return "".join(f"{line}\n" for line in lines)
