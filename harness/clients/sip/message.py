"""SIP messages (RFC 3261 section 7): parsed strictly where a measurement hangs on it, built byte by byte.

`parse` takes one whole message (a datagram, or what a stream's framing cut out) and raises `BadMessage`, nothing else,
for whatever it can't make sense of; where that is a request that should be told so, it is a `BadRequest` with the code
to answer. Unknown headers and methods pass. The measure is RFC 4475 (grammar.py).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.clients.sip import grammar

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
ONCE = (*MANDATORY[1:], "max-forwards", "date", "expires")
"""Headers that may occur once; of Content-Length several may agree."""

BIGGEST_CSEQ = 2**31
_TAG = re.compile(r";\s*tag\s*=\s*([^\s;,>]+)", re.IGNORECASE)
_BRANCH = re.compile(r";\s*branch\s*=\s*([^\s;,]+)", re.IGNORECASE)


class BadMessage(ValueError):
    """Not a SIP message, or one that says nothing certain."""


class BadRequest(BadMessage):
    """A request that is wrong in a way its sender can be told: `code` and the text are the answer to `request`."""

    def __init__(self, why: str, *, request: Message, code: int = 400) -> None:
        super().__init__(why)
        self.request = request
        self.code = code


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
    message, code, wrong = _start(lines[0], headers)
    wrong = wrong or _wrong_headers(message)
    if not wrong:
        try:
            return _with_body(message, body)
        except BadMessage as error:
            wrong = str(error)
    if message.is_response or message.method == "ACK" or not message.get("via"):
        raise BadMessage(wrong)
    raise BadRequest(wrong, request=message, code=code)


def request(method: str, uri: str, headers: Iterable[Header], body: bytes = b"") -> bytes:
    """The bytes of a request; Content-Length is added, everything else is the caller's."""
    return _build(f"{method} {uri} SIP/2.0", headers, body)


def response(
    to: Message, code: int, reason: str, *, to_tag: str, headers: Iterable[Header] = (), body: bytes = b""
) -> bytes:
    """The bytes of a response (RFC 3261 8.2.6): Via, From, To, Call-ID, CSeq and Record-Route as in the request."""
    copied: list[Header] = [("Via", value) for value in to.all("via")]
    copied += [("Record-Route", value) for value in to.all("record-route")] if code > 100 else []
    for name in ("From", "To", "Call-ID", "CSeq"):
        if (value := to.get(name.lower())) is not None:  # a 400 answers what lacks some, too
            tagged = name == "To" and code > 100 and not tag_of(value)
            copied.append((name, f"{value};tag={to_tag}" if tagged else value))
    return _build(f"SIP/2.0 {code} {reason}", [*copied, *headers], body)


def split_list(value: str) -> list[str]:
    """Split a header value at its commas, not at those in quotes or in <>."""
    if "," not in value:
        return [value.strip()] if value.strip() else []
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
    """Lines, with continuation lines (RFC 3261 7.3.1) joined. A lone CR or LF ends no line and belongs in none."""
    lines = re.sub(r"\r\n[ \t]+", " ", head.lstrip("\r\n")).split("\r\n")
    if any("\r" in line or "\n" in line for line in lines):
        raise BadMessage("a lone CR or LF")
    return lines


def _header(line: str) -> Header:
    name, colon, value = line.partition(":")
    name = name.strip(" \t").lower()
    if not colon or not grammar.is_token(name):
        raise BadMessage(f"not a header: {line[:60]!r}")
    return COMPACT.get(name, name), value.strip(" \t")


def _start(line: str, headers: tuple[Header, ...]) -> tuple[Message, int, str]:
    """A message without its body; the code it would have to be answered with, and what is wrong with its start."""
    first, _, rest = line.partition(" ")
    if first == "SIP/2.0":
        code, _, reason = rest.partition(" ")
        if not re.fullmatch(r"[1-6][0-9][0-9]", code):
            raise BadMessage(f"not a status line: {line[:60]!r}")
        return Message(headers=headers, code=int(code), reason=reason), 0, ""
    uri, _, version = rest.strip(" ").rpartition(" ")
    if not grammar.is_token(first) or not re.fullmatch(r"SIP/[0-9]+\.[0-9]+", version):
        raise BadMessage(f"not a request line: {line[:60]!r}")
    message = Message(headers=headers, method=first, uri=uri)
    if version != "SIP/2.0":
        return message, 505, "Version Not Supported"
    if line != f"{first} {uri} {version}" or not grammar.is_request_uri(uri):
        return message, 400, "Bad Request-Line"
    return message, 400, ""


def _wrong_headers(message: Message) -> str:
    """What is wrong with the headers that everyone has to understand; empty when nothing is."""
    values: dict[str, list[str]] = {}
    for name, value in message.headers:
        values.setdefault(name, []).append(value)
    for name in MANDATORY:
        if name not in values:
            return f"Missing {name}"
    for name in ONCE:
        if len(values.get(name, ())) > 1:
            return f"Several {name}"
    number, _, method = values["cseq"][0].partition(" ")
    method = method.strip(" \t")
    if not re.fullmatch(r"[0-9]{1,12}", number) or int(number) >= BIGGEST_CSEQ or not grammar.is_token(method):
        return "Bad CSeq"
    if not values["call-id"][0] or " " in values["call-id"][0]:
        return "Bad Call-ID"
    if message.method and message.method != method:
        return "CSeq Of Another Method"
    if not all(grammar.is_via(via) for via in message.all("via")) or not values["via"][0]:
        return "Bad Via"
    for name in ("from", "to"):
        if not grammar.is_address(values[name][0]):
            return f"Bad {name}"
    return "" if message.is_response else _wrong_request(message, values)


def _wrong_request(message: Message, values: dict[str, list[str]]) -> str:
    """Answers are taken as they come there; who asks can be told."""
    contacts = message.all("contact")
    if not all(grammar.is_address(contact) for contact in contacts) and contacts != ["*"]:
        return "Bad contact"
    hops = values.get("max-forwards", ["70"])[0]
    if not re.fullmatch(r"[0-9]{1,9}", hops) or int(hops) > 255:
        return "Bad max-forwards"
    if "date" in values and not values["date"][0].endswith(" GMT"):
        return "Bad date"
    return ""


def _with_body(message: Message, body: bytes) -> Message:
    """Its body is cut to Content-Length (RFC 3261 18.3: a datagram may carry more, less is an error)."""
    said = {value for key, value in message.headers if key == "content-length"}
    if len(said) > 1:
        raise BadMessage("Several content-length")
    for value in said:
        if not re.fullmatch(r"[0-9]{1,9}", value):
            raise BadMessage("Bad content-length")
        if len(body) < int(value):
            raise BadMessage(f"{len(body)} bytes of a body of {int(value)}")
        body = body[: int(value)]
    return dataclasses.replace(message, body=body)


def _build(start: str, headers: Iterable[Header], body: bytes) -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    for line in lines:
        if "\r" in line or "\n" in line:
            raise ValueError(f"a line break inside a SIP header: {line!r}")
    return "\r\n".join([*lines, "", ""]).encode() + body
