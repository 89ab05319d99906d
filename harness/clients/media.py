"""RTP (RFC 3550) with G.711 frames that say whose they are, so that only the right audio counts.

A frame's payload is a token repeated to 160 bytes: the run, the role of the sender and the number of the call. It is
found wherever a relay put the frame's edges; a PBX that decodes and re-encodes G.711 keeps the bytes.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.clients.open_loop import call_at_ns
from harness.clients.rtp.packet import FIRST_BYTE, HEADER, PCMU
from harness.clients.sip.transport import Address, UdpSocket
from harness.clock import now_ns

FRAME_NS = 20_000_000
FRAME_BYTES = 160
FIRST_PORT, LAST_PORT = 40000, 59998
_MARK = b"pbxaudio"
_TOKEN = re.compile(re.escape(_MARK) + rb"(.{8})([AB])(.{4})", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """Whose audio: 8 bytes of the run, the role ("A" called, "B" was called), and the call's number."""

    run: bytes
    role: str
    n: int

    def __post_init__(self) -> None:
        if len(self.run) != 8 or self.role not in ("A", "B") or not 0 <= self.n < 2**32:
            raise ValueError(f"not a token: {self}")

    def word(self) -> bytes:
        return _MARK + self.run + self.role.encode() + self.n.to_bytes(4, "big")

    def payload(self) -> bytes:
        word = self.word()
        return (word * (FRAME_BYTES // len(word) + 1))[:FRAME_BYTES]


def heard(data: bytes) -> Token | None:
    """The token in an RTP packet; None for anything else."""
    if len(data) < HEADER.size or data[0] >> 6 != 2:
        return None
    found = _TOKEN.search(data, HEADER.size)
    if not found:
        return None
    return Token(run=found[1], role=found[2].decode(), n=int.from_bytes(found[3], "big"))


class Ports:
    """Even ports in rotation: a port is used again only after all others, so late packets meet no new call."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._next = FIRST_PORT + 2 * secrets.randbelow((LAST_PORT - FIRST_PORT) // 2)

    def open(self) -> UdpSocket:
        """The next free one; `OSError` when a hundred in a row are taken."""
        for attempt in range(100):
            port = self._next
            self._next = FIRST_PORT if port + 2 > LAST_PORT else port + 2
            try:
                return UdpSocket((self._host, port))
            except OSError:
                if attempt == 99:
                    raise
        raise AssertionError("unreachable")


class Audio:
    """One end of a call's audio: sends a frame every 20 ms once `start`ed, hands what it hears to `on_token`.

    `on_token(token, received_ns)` may close the audio it is called from.
    """

    def __init__(self, udp: UdpSocket, *, token: Token, on_token: Callable[[Token, int], None]) -> None:
        self.token = token
        self.foreign = 0
        self._udp = udp
        self._on_token = on_token
        self._loop = asyncio.get_running_loop()
        self._remote: Address | None = None
        self._timer: Any = None
        self._open = True
        self._seq = secrets.randbelow(1 << 15)
        self._stamp = secrets.randbelow(1 << 31)
        self._ssrc = secrets.randbelow(1 << 32)
        self._due_ns = 0
        self._loop.add_reader(udp.fileno(), self.read)

    @property
    def local(self) -> Address:
        return self._udp.local

    @property
    def sending(self) -> bool:
        return self._remote is not None and self._open

    def start(self, remote: Address) -> None:
        """Send to `remote` from now on; a second start only changes the address."""
        began = self._remote is not None
        self._remote = remote
        if not began and self._open:
            self._due_ns = now_ns()
            self._frame()

    def read(self) -> None:
        for datagram in self._udp.receive():
            token = heard(datagram.data)
            if token is None or token.run != self.token.run:
                self.foreign += 1
            elif self._open:
                self._on_token(token, datagram.received_ns)
            if not self._open:
                return
        for _ in self._udp.refusals():
            pass

    def close(self) -> None:
        """Silent, deaf, and its port given back; idempotent."""
        if self._open:
            self._open = False
            if self._timer is not None:
                self._timer.cancel()
            self._loop.remove_reader(self._udp.fileno())
            self._udp.close()

    def _frame(self) -> None:
        if not self._open or self._remote is None:
            return
        header = HEADER.pack(FIRST_BYTE, PCMU, self._seq & 0xFFFF, self._stamp & 0xFFFFFFFF, self._ssrc)
        self._udp.send(header + self.token.payload(), self._remote)
        self._seq += 1
        self._stamp += FRAME_BYTES
        self._due_ns = max(self._due_ns + FRAME_NS, now_ns())
        self._timer = call_at_ns(self._loop, self._due_ns, self._frame)
