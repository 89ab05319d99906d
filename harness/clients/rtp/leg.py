"""One end of one call's audio: its two ports, what it sends, and how it judges what it receives."""

from __future__ import annotations

import secrets
import socket
import sys
from typing import Any

from harness.clients.rtp import marks
from harness.clients.rtp.g711 import PAYLOAD_TYPE, Codec
from harness.clients.rtp.marks import Mark
from harness.clients.rtp.packet import FIRST_BYTE, HEADER, MARKER, unpack
from harness.clients.rtp.rtcp import Exchange
from harness.clients.rtp.stamps import CONTROL_BYTES, Stamps
from harness.clients.rtp.stats import FRAME_NS, SILENCE_NS, UNIT_NS, Gap, Histogram, Reception
from harness.clients.sip.transport import SO_TIMESTAMPNS, Address
from harness.clock import ms, now_ns

FRAME_UNITS = 160
FIRST_PORT, LAST_PORT = 20000, 31998
"""Below the new-call probe's and the kernel's own."""

LATE_BUCKET_NS = 100_000

SO_RXQ_OVFL = 40
"""asm-generic/socket.h: packets that the kernel dropped because the socket was full, told with the next (socket(7))."""

_RECEIVE_BUFFER = 1 << 20


class PortPairs:
    """An even port for RTP and the odd one after it for RTCP (RFC 3550 11), in rotation from a random start."""

    def __init__(self) -> None:
        self._next = FIRST_PORT + 2 * secrets.randbelow((LAST_PORT - FIRST_PORT) // 2)

    def open(self, host: str) -> tuple[socket.socket, socket.socket]:
        """The next free pair; `OSError` when a hundred in a row are taken."""
        for attempt in range(100):
            port = self._next
            self._next = FIRST_PORT if port + 2 > LAST_PORT else port + 2
            rtp, rtcp = _udp(), _udp()
            try:
                rtp.bind((host, port))
                rtcp.bind((host, port + 1))
            except OSError:
                rtp.close()
                rtcp.close()
                if attempt == 99:
                    raise
            else:
                return rtp, rtcp
        raise AssertionError("unreachable")


class End:
    """An open leg. `pauses` takes the time between right packets, of all legs together."""

    def __init__(
        self, call: str, side: str, *, mark: Mark, codec: Codec, host: str, ports: PortPairs, pauses: Histogram
    ) -> None:
        self.call, self.side = call, side
        self.reception = Reception()
        self.remote: Address | None = None
        self.sending = False
        self.sent = self.unsent = self.skipped = self.overflowed = 0
        self.late = Histogram(width_ns=LATE_BUCKET_NS)
        self.opened_ns = now_ns()
        self.rtp, self.rtcp = ports.open(host)
        self._mark = mark
        self._hears = marks.hears(mark)
        self._pauses = pauses
        self._held: tuple[int, int | None] | None = None
        self._packet = bytearray(HEADER.size + FRAME_UNITS)
        self._seq = secrets.randbelow(1 << 15)
        self._stamp = secrets.randbelow(1 << 31)
        self._ssrc = secrets.randbelow(1 << 32)
        self._first = True
        self.use(codec)
        self.exchange = Exchange(ssrc=self._ssrc, name=f"{secrets.token_hex(6)}@{host}")

    @property
    def key(self) -> str:
        return f"{self.call}/{self.side}"

    @property
    def local(self) -> Address:
        address: Address = self.rtp.getsockname()
        return address

    def use(self, codec: Codec) -> None:
        self._type = PAYLOAD_TYPE[codec]
        self._packet[HEADER.size :] = marks.frame(self._mark, codec)

    def begin(self) -> None:
        """Its turn comes from now on; the first frame has the marker of a talk spurt (RFC 3551 4.1)."""
        self.sending = self._first = True

    def send_frame(self, due_ns: int) -> None:
        """The frame that was due then; left out when that is a whole frame ago: a burst would measure the burst."""
        late_ns = now_ns() - due_ns
        self.late.add(late_ns)
        if late_ns >= FRAME_NS:
            self.skipped += 1
            return
        kind = self._type | MARKER if self._first else self._type
        self._first = False
        HEADER.pack_into(self._packet, 0, FIRST_BYTE, kind, self._seq & 0xFFFF, self._stamp_at(due_ns), self._ssrc)
        self._seq += 1
        try:
            self.rtp.sendto(self._packet, self.remote)  # type: ignore[arg-type]
        except OSError:
            self.unsent += 1
        else:
            self.sent += 1

    def read_audio(self, buffer: bytearray, stamps: Stamps) -> Gap | None:
        """Take in one packet of the RTP port; the silence that it ended."""
        try:
            size, control, _, _ = self.rtp.recvmsg_into([buffer], CONTROL_BYTES)
        except OSError:
            return None
        if len(control) > 1:
            self._count_overflow(control)
        received_ns = stamps.received_ns(control)
        fields = unpack(buffer, size)
        if fields is None:
            self.exchange.read(bytes(buffer[:size]), wall_ns=stamps.wall_of(received_ns))
            return None
        kind, seq, stamp, ssrc, start, end = fields
        right = self._hears(buffer, start, end, kind)
        pause_ns = self.reception.arrive(seq, stamp, ssrc, received_ns, right=right)
        if pause_ns is None:
            return None
        self._pauses.add(pause_ns)
        return self.reception.gap if pause_ns >= SILENCE_NS else None

    def read_reports(self, buffer: bytearray, stamps: Stamps) -> None:
        """Take in one packet of the RTCP port."""
        try:
            size, control, _, _ = self.rtcp.recvmsg_into([buffer], CONTROL_BYTES)
        except OSError:
            return
        self.exchange.read(bytes(buffer[:size]), wall_ns=stamps.wall_of(stamps.received_ns(control)))

    def report(self, at_ns: int, stamps: Stamps, *, bye: bool = False) -> None:
        """Send a report; nothing where there is nobody to send it to."""
        if self.remote is None:
            return
        data = self.exchange.write(
            self.reception,
            wall_ns=stamps.wall_of(at_ns),
            stamp=self._stamp_at(at_ns),
            sent=self.sent,
            payload_bytes=self.sent * FRAME_UNITS,
            bye=bye,
        )
        try:
            self.rtcp.sendto(data, (self.remote[0], self.remote[1] + 1))
        except OSError:
            self.unsent += 1

    def other_holds(self, at_ns: int) -> None:
        """From now on the other end is silent because it was told to be."""
        self._held = (at_ns, None)

    def other_resumes(self, at_ns: int) -> None:
        if self._held is not None:
            self._held = (self._held[0], at_ns)

    def held(self, from_ns: int, to_ns: int) -> bool:
        """Whether the other end was told to be silent at some time in between."""
        if self._held is None:
            return False
        began, ended = self._held
        return began < to_ns and (ended is None or ended > from_ns)

    def row(self, at_ns: int) -> list[float | int | None]:
        """This leg in a `media_second` (`Reception.row`)."""
        return self.reception.row(at_ns)

    def whole(self, at_ns: int) -> dict[str, Any]:
        """All there is to say of this leg."""
        return {
            "call": self.call,
            "side": self.side,
            "local": self.local,
            "opened_ns": self.opened_ns,
            **self.reception.whole(at_ns),
            "overflowed": self.overflowed,
            "sent": self.sent,
            "unsent": self.unsent,
            "skipped": self.skipped,
            "send_late_ms": {
                "p50": ms(self.late.quantile_ns(0.5)),
                "p99": ms(self.late.quantile_ns(0.99)),
                "max": ms(self.late.longest_ns),
            },
            "rtcp": self.exchange.value(),
        }

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()

    def _count_overflow(self, control: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == SO_RXQ_OVFL:
                self.overflowed = int.from_bytes(data[:4], sys.byteorder)

    def _stamp_at(self, at_ns: int) -> int:
        """The sampling clock goes on while nothing is sent."""
        return self._stamp + (at_ns - self.opened_ns) // UNIT_NS & 0xFFFFFFFF


def _udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    made.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
    return made
