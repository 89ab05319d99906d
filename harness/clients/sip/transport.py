"""UDP sockets that know when the kernel received what, and which packet an ICMP error is about.

Receive times come from the kernel (SO_TIMESTAMPNS), so that a busy interpreter does not lengthen an outage; they are
wall-clock and are turned into CLOCK_MONOTONIC with the offset of that very moment. SIP over TCP, TLS and WSS will get
sockets of their own beside this one, with the same `send` and `receive`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from harness.clock import NS_PER_S, now_ns
from harness.results import TransportName

Address = tuple[str, int]

VIA: dict[TransportName, str] = {"udp": "UDP", "tcp": "TCP", "tls": "TLS", "wss": "WSS"}
"""What a Via calls a transport (RFC 3261 20.42, RFC 7118 5)."""

CONTACT: dict[TransportName, str] = {
    "udp": "", "tcp": ";transport=tcp", "tls": ";transport=tls", "wss": ";transport=ws",
}  # fmt: skip
"""What a Contact says of it."""

SO_TIMESTAMPNS = 35
"""SO_TIMESTAMPNS_OLD and its control message, asm-generic/socket.h; Python names neither."""

IP_RECVERR = 11
"""linux/in.h: keep ICMP errors in a queue, each with the packet that caused it (ip(7))."""

_RECEIVE_BUFFER = 1 << 20
_BIGGEST = 65535
_TIMESPEC = struct.Struct("@qq")
_EXTENDED_ERR = struct.Struct("@IBBBBII")
_PENDING = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPROTO)


@dataclass(frozen=True, kw_only=True, slots=True)
class Datagram:
    """What came in. `received_ns` is the kernel's time, `seen_ns` when it was read; both CLOCK_MONOTONIC."""

    data: bytes
    source: Address
    received_ns: int
    seen_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An ICMP error: the start of the packet it is about, and its name (ECONNREFUSED is a closed port)."""

    data: bytes
    name: str
    received_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A send that lies between these two times (CLOCK_MONOTONIC); `error` names why it did not happen."""

    before_ns: int
    after_ns: int
    error: str | None = None

    @property
    def took_ms(self) -> float:
        return round((self.after_ns - self.before_ns) / 1e6, 3)


class UdpSocket:
    """A non-blocking, unconnected UDP socket: like a phone's, it takes answers from any address."""

    def __init__(self, local: Address) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            self._socket.bind(local)
        except OSError:
            self._socket.close()
            raise
        self.local: Address = self._socket.getsockname()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes, to: Address) -> Sent:
        """Send once. An ICMP error that waits from an earlier packet fails a send that never left: that is redone."""
        for last in (False, True):
            before_ns = now_ns()
            try:
                self._socket.sendto(data, to)
            except OSError as error:
                if last or error.errno not in _PENDING:
                    return Sent(before_ns=before_ns, after_ns=now_ns(), error=_name(error.errno))
            else:
                return Sent(before_ns=before_ns, after_ns=now_ns())
        raise AssertionError("unreachable")

    def receive(self) -> Iterator[Datagram]:
        """Everything that waits in the socket."""
        while True:
            try:
                data, control, _, source = self._socket.recvmsg(_BIGGEST, 256)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _PENDING:
                    continue
                return
            seen_ns = now_ns()
            yield Datagram(data=data, source=source, received_ns=_kernel_ns(control, seen_ns), seen_ns=seen_ns)

    def refusals(self) -> Iterator[Refusal]:
        """Every ICMP error that waits."""
        while True:
            try:
                data, control, _, _ = self._socket.recvmsg(_BIGGEST, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            yield Refusal(data=data, name=_icmp_name(control), received_ns=_kernel_ns(control, now_ns()))

    def close(self) -> None:
        self._socket.close()


def local_address_towards(to: Address) -> str:
    """The address of this host that packets to `to` leave from; `OSError` when there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(to)
        return str(probe.getsockname()[0])


def _kernel_ns(control: list[tuple[int, int, bytes]], seen_ns: int) -> int:
    """The kernel's time stamp on CLOCK_MONOTONIC; `seen_ns` where there is none or it can't be true (a clock set)."""
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            stamp_ns = seconds * NS_PER_S + nanoseconds - (time.time_ns() - now_ns())
            if seen_ns - 60 * NS_PER_S < stamp_ns <= seen_ns:
                return int(stamp_ns)
    return seen_ns


def _icmp_name(control: list[tuple[int, int, bytes]]) -> str:
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == IP_RECVERR and len(data) >= _EXTENDED_ERR.size:
            return _name(_EXTENDED_ERR.unpack_from(data)[0])
    return "ICMP error"


def _name(number: int | None) -> str:
    with suppress(KeyError, TypeError):
        return errno.errorcode[number]  # type: ignore[index]
    return os.strerror(number or 0)
