"""SIP over TCP and TLS (RFC 3261 18, RFC 5626), thousands of connections in a process.

No asyncio streams and no buffers per connection: a socket, its TLS state, and what is left of an unfinished message.
The certificate of a cell is its own, so nobody checks it.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
import struct
from collections.abc import Callable

from harness.clients.sip.flow import MOST_READS, FlowFailed, Inbox, not_sent
from harness.clients.sip.framer import BIGGEST, PING, PONG, BadStream, Framer
from harness.clients.sip.transport import Address, Sent
from harness.clock import now_ns
from harness.results import TransportName

_READ = 16384
"""A TLS record at most (RFC 8446 5.1)."""

_ABORT = struct.pack("ii", 1, 0)


@functools.cache
def shared_context() -> ssl.SSLContext:
    """TLS that believes any certificate; one for every connection of this process, it is big."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Stream:
    """A connected socket, plain or TLS, that never blocks: bytes in, bytes out, and an end with a reason.

    `take` is given what came in; `ended` is called once with why the connection is gone, but not after `close`.
    """

    __slots__ = ("_ended", "_out", "_socket", "_take", "_tls", "_writing")

    def __init__(self, *, tls: bool, take: Callable[[bytes], None], ended: Callable[[str], None]) -> None:
        self._tls = tls
        self._take = take
        self._ended = ended
        self._socket: socket.socket | None = None
        self._out = b""
        self._writing = False

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    async def connect(self, *, to: Address, local_ip: str, timeout_s: float) -> Address:
        """Connect, and shake hands over TLS; returns the own address. `FlowFailed` says why not."""
        loop = asyncio.get_running_loop()
        try:
            self._socket = raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            raw.setblocking(False)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.bind((local_ip, 0))
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(raw, to)
                if self._tls:
                    wrapped = shared_context().wrap_socket(raw, do_handshake_on_connect=False)
                    self._socket = wrapped
                    await _shake_hands(wrapped)
        except TimeoutError:
            self.close()
            raise FlowFailed(f"no connection within {timeout_s:g} s") from None
        except OSError as error:
            self.close()
            raise FlowFailed(reason(error)) from None
        except BaseException:
            self.close()
            raise
        if self._socket is None:
            raise FlowFailed("closed meanwhile")
        address: Address = self._socket.getsockname()
        return address

    def start(self) -> None:
        """Read from now on. What came with the last flight of a handshake makes no descriptor readable: read it now."""
        assert self._socket is not None
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)
        self._read()

    def write(self, data: bytes) -> str | None:
        """Send, now or as soon as the socket takes it; returns why that can't be, and has ended then."""
        if self._socket is None:
            return "the flow is down"
        if len(self._out) + len(data) > BIGGEST:
            return self._end("the PBX does not read")
        self._out += data
        return self._flush()

    def close(self) -> None:
        """At once and with a reset: what is under way is lost."""
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        fd = self._socket.fileno()
        if fd >= 0:
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._socket.close()
        self._socket, self._out, self._writing = None, b"", False

    def _read(self) -> None:
        for _ in range(MOST_READS):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._end(reason(error))
                return
            if not data:
                self._end("closed by the PBX")
                return
            self._take(data)
        asyncio.get_running_loop().call_soon(self._read)  # TLS may hold more than the descriptor shows

    def _flush(self) -> str | None:
        if self._socket is None:
            return "the flow is down"
        loop = asyncio.get_running_loop()
        try:
            while self._out:
                self._out = self._out[self._socket.send(self._out) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            if not self._writing:
                self._writing = True
                loop.add_writer(self._socket.fileno(), self._flush)
            return None
        except OSError as error:
            return self._end(reason(error))
        if self._writing:
            self._writing = False
            loop.remove_writer(self._socket.fileno())
        return None

    def _end(self, why: str) -> str:
        if self._socket is not None:
            self.close()
            self._ended(why)
        return why


async def _shake_hands(wrapped: ssl.SSLSocket) -> None:
    while True:
        try:
            wrapped.do_handshake()
            return
        except ssl.SSLWantReadError:
            await _ready(wrapped, write=False)
        except ssl.SSLWantWriteError:
            await _ready(wrapped, write=True)


async def _ready(wrapped: ssl.SSLSocket, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    fd = wrapped.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, "closed meanwhile")
    add(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(fd)


class StreamFlow:
    """A connection to the PBX over TCP or TLS; answers keep-alive pings, and counts pongs."""

    __slots__ = ("_framer", "_inbox", "_local_ip", "_stream", "_to", "local", "pongs", "transport")

    def __init__(self, *, transport: TransportName, to: Address, local_ip: str, inbox: Inbox) -> None:
        self.transport = transport
        self.local: Address = (local_ip, 0)
        self.pongs = 0
        self._to = to
        self._local_ip = local_ip
        self._inbox = inbox
        self._stream = Stream(tls=transport == "tls", take=self._deliver, ended=inbox.down)
        self._framer = Framer()

    @property
    def up(self) -> bool:
        return self._stream.is_open

    async def open(self, *, timeout_s: float) -> None:
        self.local = await self._stream.connect(to=self._to, local_ip=self._local_ip, timeout_s=timeout_s)
        self._stream.start()

    def send(self, data: bytes) -> Sent:
        if not self.up:
            return not_sent()
        before_ns = now_ns()
        error = self._stream.write(data)
        return Sent(before_ns=before_ns, after_ns=now_ns(), error=error)

    def ping(self) -> bool:
        self.send(PING)
        return True

    def close(self) -> None:
        self._stream.close()

    def _deliver(self, data: bytes) -> None:
        received_ns = now_ns()
        try:
            for frame in self._framer.feed(data):
                if frame == PING:
                    self.send(PONG)
                elif frame == PONG:
                    self.pongs += 1
                else:
                    self._inbox.take(frame, received_ns)
                if not self.up:
                    return
        except BadStream as error:
            self._inbox.bad += 1
            self._stream.close()
            self._inbox.down(str(error))


def reason(error: OSError) -> str:
    """A few words for what broke a connection."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if error.errno is not None and error.errno in errno.errorcode:
        return errno.errorcode[error.errno]
    return str(error) or type(error).__name__
