"""The SIP messages that baresip prints (`-s`): which were sent, which received, over which transport. Pure.

ctrl_tcp tells of registrations and calls, but not of re-INVITEs, nor of the code that answered a BYE; the trace does,
also of what TLS hides on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.clients.sip.message import BadMessage, Message, parse

_HEAD = re.compile(r"^(UDP|TCP|TLS|WSS?) (\S+) -> (\S+)$")
_END = "\x1b[;m"
_LONGEST = 1 << 16
_TORN_LINE = 4096


@dataclass(frozen=True, kw_only=True)
class Traced:
    """One message; `sent` by baresip, or received."""

    sent: bool
    message: Message


class Trace:
    """Fed with what baresip prints, in pieces of any size; `local_ip` tells its own messages from the others'."""

    def __init__(self, local_ip: str) -> None:
        self._local = f"{local_ip}:"
        self._torn = b""
        self._head: re.Match[str] | None = None
        self._lines: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Traced]:
        *lines, self._torn = (self._torn + data).split(b"\n")
        self._torn = self._torn[-_TORN_LINE:]
        for line in lines:
            traced = self._take(line.decode(errors="replace").rstrip("\r"))
            if traced is not None:
                yield traced

    def _take(self, line: str) -> Traced | None:
        if self._head is None:
            self._head = _HEAD.match(line)
            self._lines, self._size = [], 0
            return None
        if _END in line or self._size > _LONGEST:
            head, self._head = self._head, None
            text = "\r\n".join([*self._lines, line.partition(_END)[0], "", ""])
            try:
                message = parse(text.encode())  # what follows the body is cut off by its Content-Length
            except BadMessage:
                return None
            return Traced(sent=head[2].startswith(self._local), message=message)
        self._lines.append(line)
        self._size += len(line)
        return None
