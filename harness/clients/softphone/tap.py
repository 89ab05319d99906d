"""RTP of a program that is not ours, seen at its machine's network: the kernel's times, the other end's tone.

baresip counts packets, but tells of no silence. So its packets are read beside it, by a packet socket in the same
network namespace, as a capture would, and judged as the media engine judges its own. Plain RTP only: what SRTP
carries can't be heard from outside.
"""

from __future__ import annotations

import socket
import struct
from ctypes import addressof, create_string_buffer
from typing import Any

from harness.clients.rtp.packet import unpack
from harness.clients.rtp.stamps import CONTROL_BYTES, Stamps
from harness.clients.rtp.stats import Gap, Reception
from harness.clients.rtp.tone import Ear, Tone
from harness.clients.sip.transport import SO_TIMESTAMPNS
from harness.clock import now_ns

Instruction = tuple[int, int, int, int]

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
"""linux/if_ether.h: what is sent is shown only to those who want everything."""

PACKET_OUTGOING = 4
"""linux/if_packet.h: a packet socket sees also what is sent."""

SO_ATTACH_FILTER = 26
_RECEIVE_BUFFER = 1 << 20
_UDP_HEADER = 8
_PROTOCOL = 0xFFFFF000
"""Where a filter loads the Ethernet protocol from (linux/filter.h: SKF_AD_OFF + SKF_AD_PROTOCOL)."""

_LOAD_BYTE, _LOAD_HALF, _LOAD_HALF_AT, _LOAD_LENGTH = 0x30, 0x28, 0x48, 0xB1
_IF_EQUAL, _IF_BITS, _IF_AT_LEAST, _IF_ABOVE, _RETURN = 0x15, 0x45, 0x35, 0x25, 0x06


class Tap:
    """Everything to and from the UDP ports `first`-`last` of this network namespace; RTP is what has an even port."""

    def __init__(self, *, first: int, last: int, tone: Tone) -> None:
        self.reception = Reception()
        self.sent = 0
        self.opened_ns = now_ns()
        self._ports = range(first, last + 1, 2)
        self._ear = Ear(tone.other_hz)
        self._stamps = Stamps()
        self._buffer = bytearray(2048)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        _attach(self._socket, udp_ports(first, last))

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[Gap]:
        """All that waits; the silences that ended."""
        gaps: list[Gap] = []
        self._stamps.refresh()
        while True:
            try:
                size, control, _, address = self._socket.recvmsg_into([self._buffer], CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                return gaps
            if (gap := self._take(size, control, outgoing=address[2] == PACKET_OUTGOING)) is not None:
                gaps.append(gap)

    def row(self, at_ns: int) -> list[float | int | None]:
        """This leg in a `media_second`, as the media engine has it."""
        return self.reception.row(at_ns)

    def whole(self, at_ns: int) -> dict[str, Any]:
        """This leg in its `media_leg`."""
        return {"opened_ns": self.opened_ns, **self.reception.whole(at_ns), "sent": self.sent}

    def close(self) -> None:
        self._socket.close()

    def _take(self, size: int, control: list[tuple[int, int, bytes]], *, outgoing: bool) -> Gap | None:
        packet = memoryview(self._buffer)[:size]
        start = (packet[0] & 0x0F) * 4
        source, target = struct.unpack_from("!HH", packet, start)
        if outgoing:
            self.sent += source in self._ports
            return None
        if target not in self._ports:
            return None
        payload = bytes(packet[start + _UDP_HEADER :])
        fields = unpack(payload, len(payload))
        if fields is None:
            return None
        kind, seq, stamp, ssrc, begin, end = fields
        right = self._ear.hears(payload[begin:end], kind)
        self.reception.gap = None
        self.reception.arrive(seq, stamp, ssrc, self._stamps.received_ns(control), right=right)
        return self.reception.gap


def udp_ports(first: int, last: int) -> list[Instruction]:
    """A classic BPF program (linux/filter.h) over a packet's IPv4: UDP from or to these ports, no later fragments."""
    return [
        (_LOAD_HALF, 0, 0, _PROTOCOL),
        (_IF_EQUAL, 0, 11, ETH_P_IP),
        (_LOAD_BYTE, 0, 0, 9),
        (_IF_EQUAL, 0, 9, socket.IPPROTO_UDP),
        (_LOAD_HALF, 0, 0, 6),
        (_IF_BITS, 7, 0, 0x1FFF),
        (_LOAD_LENGTH, 0, 0, 0),
        (_LOAD_HALF_AT, 0, 0, 2),
        (_IF_AT_LEAST, 0, 1, first),
        (_IF_ABOVE, 0, 4, last),
        (_LOAD_HALF_AT, 0, 0, 0),
        (_IF_AT_LEAST, 0, 1, first),
        (_IF_ABOVE, 0, 1, last),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFF),
    ]


def _attach(source: socket.socket, program: list[Instruction]) -> None:
    code = create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    source.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), addressof(code)))
