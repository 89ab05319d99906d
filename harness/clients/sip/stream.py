"""SIP over TCP and TLS (RFC 3261 18, RFC 5626): messages cut out of a stream, thousands of connections in a process.

No asyncio streams and no buffers per connection: a socket, its TLS state, and what is left of an unfinished message.
The certificate of a cell is its own, so nobody checks it.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Callable, Iterator

from harness.clients.sip.flow import FlowFailed, Inbox, down
from harness.clients.sip.transport import Address, Sent
from harness.clock import now_ns
from harness.results import TransportName

BIGGEST = 65536
"""A message, headers and body, beyond which a peer is hostile; also the most that waits to be sent."""

_READ = 65536
_LENGTH = re.compile(rb"(?:^|\r\n)(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,6})[ \t]*(?=\r\n|$)", re.IGNORECASE)
PING = b"\r\n\r\n"
PONG = b"\r\n"


class BadStream(ValueError):
    """What came is no row of SIP messages; nothing after it can be told apart either."""


class Framer:
    """Cuts a stream into messages by Content-Length (RFC 3261 18.3). Keep-alives (RFC 5626 3.5.1) come out as `PING`
    and `PONG`."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every whole message or keep-alive; `BadStream` when one is too big or does not say how long it is."""
        self._left += data
        while self._left:
            if self._left.startswith(b"\r\n"):
                double = self._left.startswith(PING)
                if self._left == PING[:3]:
                    return  # half of a second line: a pong, or the first part of a ping
                self._left = self._left[len(PING if double else PONG) :]
                yield PING if double else PONG
                continue
            head, end, rest = self._left.partition(b"\r\n\r\n")
            if not end:
                if len(self._left) > BIGGEST:
                    raise BadStream(f"headers of more than {BIGGEST} bytes")
                return
            found = _LENGTH.search(head)
            if found is None:
                raise BadStream("a message without Content-Length")
            length = int(found[1])
            if len(head) + length > BIGGEST:
                raise BadStream(f"a message of more than {BIGGEST} bytes")
            if len(rest) < length:
                return
            self._left = rest[length:]
            yield head + end + rest[:length]


def client_context() -> ssl.SSLContext:
    """TLS that believes any certificate; share it, it is big."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_CONTEXTS: list[ssl.SSLContext] = []


def shared_context() -> ssl.SSLContext:
    """One context for every connection of this process."""
    if not _CONTEXTS:
        _CONTEXTS.append(client_context())
    return _CONTEXTS[0]


class Stream:
    """A connected socket, plain or TLS, that never blocks: bytes in, bytes out, and an end with a reason."""

    def __init__(self, *, tls: bool) -> None:
        self._tls = tls
        self._socket: socket.socket | ssl.SSLSocket | None = None
        self._out = b""
        self._writing = False

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    async def connect(self, *, to: Address, local_ip: str, timeout_s: float) -> Address:
        """Connect, and shake hands over TLS; returns the own address. `FlowFailed` says why not."""
        loop = asyncio.get_running_loop()
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket = raw
        try:
            raw.setblocking(False)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.bind((local_ip, 0))
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(raw, to)
                if self._tls:
                    wrapped = shared_context().wrap_socket(raw, do_handshake_on_connect=False)
                    self._socket = wrapped
                    await self._shake_hands(wrapped)
        except TimeoutError:
            self.close()
            raise FlowFailed(f"no connection within {timeout_s:g} s") from None
        except (OSError, ssl.SSLError) as error:
            self.close()
            raise FlowFailed(reason(error)) from None
        except BaseException:
            self.close()
            raise
        address: Address = self._socket.getsockname()
        return address

    def start(self, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever there is something to `read`."""
        assert self._socket is not None
        asyncio.get_running_loop().add_reader(self._socket.fileno(), on_readable)

    def read(self) -> bytes | None:
        """What is there: empty when nothing is, None at the end of the stream. `OSError` when it broke."""
        assert self._socket is not None
        try:
            return self._socket.recv(_READ) or None
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""

    def write(self, data: bytes) -> str | None:
        """Send, now or as soon as the socket takes it; returns why that can't be."""
        if self._socket is None:
            return "the flow is down"
        if len(self._out) + len(data) > BIGGEST:
            return "the peer does not read"
        self._out += data
        return self._flush()

    def close(self) -> None:
        """At once, without a goodbye."""
        if self._socket is None:
            return
        fd = self._socket.fileno()
        if fd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(fd)
            loop.remove_writer(fd)
        self._socket.close()
        self._socket, self._out, self._writing = None, b"", False

    def _flush(self) -> str | None:
        if self._socket is None:
            return "the flow is down"
        try:
            while self._out:
                self._out = self._out[self._socket.send(self._out) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            if not self._writing:
                self._writing = True
                asyncio.get_running_loop().add_writer(self._socket.fileno(), self._flush)
            return None
        except (OSError, ssl.SSLError) as error:
            return reason(error)
        if self._writing:
            self._writing = False
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
        return None

    async def _shake_hands(self, wrapped: ssl.SSLSocket) -> None:
        while True:
            try:
                wrapped.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._ready(wrapped, write=False)
            except ssl.SSLWantWriteError:
                await self._ready(wrapped, write=True)

    async def _ready(self, wrapped: ssl.SSLSocket, *, write: bool) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
        add(wrapped.fileno(), lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            remove(wrapped.fileno())


class StreamFlow:
    """A connection to the PBX over TCP or TLS; answers keep-alive pings, and tells when a pong comes."""

    def __init__(self, *, transport: TransportName, to: Address, local_ip: str, inbox: Inbox) -> None:
        self.transport = transport
        self.local: Address = (local_ip, 0)
        self.pongs = 0
        self._to = to
        self._local_ip = local_ip
        self._inbox = inbox
        self._stream = Stream(tls=transport == "tls")
        self._framer = Framer()

    @property
    def up(self) -> bool:
        return self._stream.is_open

    async def open(self, *, timeout_s: float) -> None:
        self.local = await self._stream.connect(to=self._to, local_ip=self._local_ip, timeout_s=timeout_s)
        self._stream.start(self._read)
        self._read()  # what came with the last flight of the handshake makes no descriptor readable

    def send(self, data: bytes) -> Sent:
        if not self.up:
            return down()
        before_ns = now_ns()
        error = self._stream.write(data)
        if error is not None:
            self._end(error)
        return Sent(before_ns=before_ns, after_ns=now_ns(), error=error)

    def close(self) -> None:
        self._stream.close()

    def _read(self) -> None:
        try:
            while self.up and (data := self._stream.read()) != b"":
                if data is None:
                    self._end("closed by the PBX")
                    return
                self._deliver(data)
        except (OSError, ssl.SSLError) as error:
            self._end(reason(error))
        except BadStream as error:
            self._inbox.bad += 1
            self._end(str(error))

    def _deliver(self, data: bytes) -> None:
        received_ns = now_ns()
        for frame in self._framer.feed(data):
            if frame == PING:
                self.send(PONG)
            elif frame == PONG:
                self.pongs += 1
            else:
                self._inbox.take(frame, received_ns)

    def _end(self, why: str) -> None:
        if self.up:
            self._stream.close()
            self._inbox.down(why)


def reason(error: OSError) -> str:
    """A few words for what broke a connection."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if error.errno is not None and error.errno in errno.errorcode:
        return errno.errorcode[error.errno]
    return str(error) or type(error).__name__
