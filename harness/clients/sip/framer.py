"""Messages cut out of a stream (RFC 3261 18.3), and the keep-alives between them (RFC 5626 3.5.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

BIGGEST = 65536
"""A message, headers and body, beyond which a peer is hostile; also the most that waits to be sent."""

PING = b"\r\n\r\n"
PONG = b"\r\n"
_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_END = b"\r\n\r\n"


class BadStream(ValueError):
    """What came is no row of SIP messages; nothing after it can be told apart either."""


class Framer:
    """Cuts a stream into messages by Content-Length. Keep-alives come out as `PING` and `PONG`.

    It keeps no more than one unfinished message of `BIGGEST` bytes, and looks at each byte once, however finely the
    stream is chopped.
    """

    __slots__ = ("_left", "_seen", "_wanted")

    def __init__(self) -> None:
        self._left = bytearray()
        self._seen = 0
        """Bytes in which no end of the headers was found."""
        self._wanted = 0
        """Length of the message that has begun, once its headers are here."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every whole message or keep-alive; `BadStream` when one is too big or does not say how long it is."""
        self._left += data
        while self._left:
            frame = self._message() if self._wanted or self._left[:2] != PONG else self._keepalive()
            if frame is None:
                return
            yield frame

    def _keepalive(self) -> bytes | None:
        if self._left == PING[:3]:
            return None  # half of a second line: a pong, or the first part of a ping
        frame = PING if self._left[:4] == PING else PONG
        del self._left[: len(frame)]
        return frame

    def _message(self) -> bytes | None:
        if not self._wanted:
            if self._left[:1] == b"\r" and len(self._left) == 1:
                return None
            end = self._left.find(_END, max(self._seen - 3, 0))
            self._seen = len(self._left)
            if end > BIGGEST or (end < 0 and self._seen > BIGGEST):
                raise BadStream(f"headers of more than {BIGGEST} bytes")
            if end < 0:
                return None
            self._wanted = end + len(_END) + _length(bytes(self._left[:end]))
            if self._wanted > BIGGEST:
                raise BadStream(f"a message of more than {BIGGEST} bytes")
        if len(self._left) < self._wanted:
            return None
        frame = bytes(self._left[: self._wanted])
        del self._left[: self._wanted]
        self._seen = self._wanted = 0
        return frame


def _length(head: bytes) -> int:
    """Content-Length is mandatory on streams (20.14), and there is only one."""
    said = {value.strip(b" \t") for value in _LENGTH.findall(head)}
    if len(said) != 1:
        raise BadStream("a message without Content-Length" if not said else "several values of Content-Length")
    value = said.pop()
    if not re.fullmatch(rb"[0-9]{1,9}", value):
        raise BadStream("a Content-Length that is no length")
    return int(value)
