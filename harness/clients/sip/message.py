"""SIP messages (RFC 3261 section 7): parsed strictly where a measurement hangs on it, built byte by byte.

`parse` takes one whole message (a datagram, or what a stream's framing cut out) and raises `BadMessage`, nothing else,
for whatever it can't make sense of. Unknown headers and methods pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Header = tuple[str, str]

COMPACT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
    "c": "content-type",
    "k": "supported",
    "s": "subject",
    "e": "content-encoding",
    "o": "event",
    "r": "refer-to",
    "u": "allow-events",
    "x": "session-expires",
}
"""Compact header names (RFC 3261 7.3.3 and the extensions that added some)."""

MANDATORY = ("via", "from", "to", "call-id", "cseq")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_TAG = re.compile(r";\s*tag\s*=\s*([^\s;,>]+)", re.IGNORECASE)
_BRANCH = re.compile(r";\s*branch\s*=\s*([^\s;,]+)", re.IGNORECASE)


class BadMessage(ValueError):
    """Not a SIP message, or one that says nothing certain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A request (`method`, `uri`) or a response (`code` > 0, `reason`). Header names are lower-case and long."""

    headers: tuple[Header, ...]
    body: bytes = b""
    method: str = ""
    uri: str = ""
    code: int = 0
    reason: str = ""

    @property
    def is_response(self) -> bool:
        return self.code > 0

    def get(self, name: str) -> str | None:
        """The first value of a header, whole."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        """Every value of a header that may be a list, in order, commas split (RFC 3261 7.3.1)."""
        return [part for key, value in self.headers if key == name for part in split_list(value)]

    @property
    def call_id(self) -> str:
        return self.get("call-id") or ""

    @property
    def cseq(self) -> tuple[int, str]:
        """Number and method; of a response, those of the request it answers."""
        number, _, method = (self.get("cseq") or "").partition(" ")
        return int(number), method.strip()

    @property
    def branch(self) -> str:
        """The transaction: the branch of the topmost Via (RFC 3261 17.1.3), empty when it has none."""
        vias = self.all("via")
        found = _BRANCH.search(vias[0]) if vias else None
        return found.group(1) if found else ""

    @property
    def from_tag(self) -> str:
        return tag_of(self.get("from") or "")

    @property
    def to_tag(self) -> str:
        return tag_of(self.get("to") or "")


def parse(data: bytes) -> Message:
    """One whole SIP message; `BadMessage` when it is none, is cut short, or lacks a mandatory header."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        raise BadMessage("no end of the headers")
    try:
        lines = _unfold(head.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadMessage("headers are not UTF-8") from error
    headers = tuple(_header(line) for line in lines[1:])
    message = _start(lines[0], headers, _whole_body(headers, body))
    for name in MANDATORY:
        if message.get(name) is None:
            raise BadMessage(f"no {name}")
    number, _, method = (message.get("cseq") or "").partition(" ")
    if not number.isascii() or not number.isdigit() or not _TOKEN.fullmatch(method.strip()):
        raise BadMessage(f"cseq is {message.get('cseq')!r}")
    if message.method and message.method != method.strip():
        raise BadMessage(f"{message.method} with the cseq of {method.strip()}")
    return message


def request(method: str, uri: str, headers: Iterable[Header], body: bytes = b"") -> bytes:
    """The bytes of a request; Content-Length is added, everything else is the caller's."""
    return _build(f"{method} {uri} SIP/2.0", headers, body)


def response(
    to: Message, code: int, reason: str, *, to_tag: str, headers: Iterable[Header] = (), body: bytes = b""
) -> bytes:
    """The bytes of a response (RFC 3261 8.2.6): Via, From, To, Call-ID, CSeq and Record-Route as in the request."""
    copied: list[Header] = [("Via", value) for value in to.all("via")]
    copied += [("Record-Route", value) for value in to.all("record-route")] if code > 100 else []
    target = to.get("to") or ""
    if code > 100 and not tag_of(target):
        target = f"{target};tag={to_tag}"
    copied += [("From", to.get("from") or ""), ("To", target)]
    copied += [("Call-ID", to.call_id), ("CSeq", to.get("cseq") or "")]
    return _build(f"SIP/2.0 {code} {reason}", [*copied, *headers], body)


def split_list(value: str) -> list[str]:
    """Split a header value at its commas, not at those in quotes or in <>."""
    parts: list[str] = []
    quoted = bracketed = escaped = False
    begin = 0
    for at, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted:
            escaped = char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char == "<":
            bracketed = True
        elif char == ">":
            bracketed = False
        elif char == "," and not bracketed:
            parts.append(value[begin:at].strip())
            begin = at + 1
    parts.append(value[begin:].strip())
    return [part for part in parts if part]


def tag_of(value: str) -> str:
    """The tag of a From or To value, empty when it has none."""
    found = _TAG.search(_after_address(value))
    return found.group(1) if found else ""


def uri_of(value: str) -> str:
    """The URI of a name-addr or addr-spec (RFC 3261 20.10): `"A" <sip:a@b;x>;tag=1` gives `sip:a@b;x`."""
    rest = _unquoted(value)
    if "<" in rest:
        return rest.partition("<")[2].partition(">")[0].strip()
    return rest.partition(";")[0].strip()


def _after_address(value: str) -> str:
    """The parameters behind the address."""
    rest = _unquoted(value)
    return rest.partition(">")[2] if "<" in rest else ";" + rest.partition(";")[2]


def _unquoted(value: str) -> str:
    return re.sub(r'"(?:[^"\\]|\\.)*"', "", value)


def _unfold(head: str) -> Sequence[str]:
    """Lines, with continuation lines (RFC 3261 7.3.1) joined."""
    return re.sub(r"\r\n[ \t]+", " ", head.lstrip("\r\n")).split("\r\n")


def _header(line: str) -> Header:
    name, colon, value = line.partition(":")
    name = name.strip().lower()
    if not colon or not _TOKEN.fullmatch(name):
        raise BadMessage(f"not a header: {line[:60]!r}")
    return COMPACT.get(name, name), value.strip()


def _start(line: str, headers: tuple[Header, ...], body: bytes) -> Message:
    first, _, rest = line.partition(" ")
    if first == "SIP/2.0":
        code, _, reason = rest.partition(" ")
        if not re.fullmatch(r"[1-6][0-9][0-9]", code):
            raise BadMessage(f"not a status line: {line[:60]!r}")
        return Message(headers=headers, body=body, code=int(code), reason=reason)
    uri, _, version = rest.partition(" ")
    if version != "SIP/2.0" or not uri or not _TOKEN.fullmatch(first):
        raise BadMessage(f"not a request line: {line[:60]!r}")
    return Message(headers=headers, body=body, method=first, uri=uri)


def _whole_body(headers: tuple[Header, ...], body: bytes) -> bytes:
    """The body cut to Content-Length (RFC 3261 18.3: a datagram may carry more, less is an error)."""
    said = next((value for key, value in headers if key == "content-length"), None)
    if said is None:
        return body
    if not re.fullmatch(r"[0-9]{1,9}", said):
        raise BadMessage(f"content-length is {said[:20]!r}")
    if len(body) < int(said):
        raise BadMessage(f"{len(body)} bytes of a body of {said}")
    return body[: int(said)]


def _build(start: str, headers: Iterable[Header], body: bytes) -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    for line in lines:
        if "\r" in line or "\n" in line:
            raise ValueError(f"a line break inside a SIP header: {line!r}")
    return "\r\n".join([*lines, "", ""]).encode() + body
