"""SIP over secure WebSocket (RFC 7118): a message is a frame. The protocol is the `websockets` library, without I/O."""

from __future__ import annotations

import asyncio
import secrets

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from harness.clients.sip.flow import FlowFailed, Inbox, not_sent
from harness.clients.sip.framer import BIGGEST
from harness.clients.sip.stream import Stream
from harness.clients.sip.transport import Address, Sent
from harness.clock import now_ns
from harness.results import TransportName


class WssFlow:
    """A WebSocket to the PBX over TLS. A browser knows no address of its own: Via and Contact name a random host in
    `.invalid` (RFC 7118 5)."""

    __slots__ = ("_inbox", "_local_ip", "_parts", "_protocol", "_shaken", "_stream", "_to", "local", "pongs")
    transport: TransportName = "wss"

    def __init__(self, *, to: Address, local_ip: str, inbox: Inbox) -> None:
        self.local: Address = (f"{secrets.token_hex(6)}.invalid", 0)
        self.pongs = 0
        self._to = to
        self._local_ip = local_ip
        self._inbox = inbox
        self._stream = Stream(tls=True, take=self._deliver, ended=self._ended)
        self._protocol: ClientProtocol | None = None
        self._shaken: asyncio.Future[None] | None = None
        self._parts = b""

    @property
    def up(self) -> bool:
        return self._stream.is_open and self._protocol is not None and self._protocol.state is State.OPEN

    async def open(self, *, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        await self._stream.connect(to=self._to, local_ip=self._local_ip, timeout_s=timeout_s)
        uri = parse_uri(f"wss://{self._to[0]}:{self._to[1]}/")
        self._protocol = ClientProtocol(uri, subprotocols=[Subprotocol("sip")], max_size=BIGGEST)
        self._protocol.send_request(self._protocol.connect())
        self._shaken = loop.create_future()
        try:
            self._stream.start()
            self._write_out()
            async with asyncio.timeout_at(until):
                await self._shaken
            if not self.up:
                raise FlowFailed("closed by the PBX")
        except TimeoutError:
            self.close()
            raise FlowFailed(f"no WebSocket within {timeout_s:g} s") from None
        except BaseException:
            self.close()
            raise
        finally:
            self._shaken = None

    def send(self, data: bytes) -> Sent:
        if not self.up or self._protocol is None:
            return not_sent()
        before_ns = now_ns()
        self._protocol.send_text(data)
        return Sent(before_ns=before_ns, after_ns=now_ns(), error=self._write_out())

    def ping(self) -> bool:
        """A WebSocket ping (RFC 6455 5.5.2); RFC 7118 6 leaves the choice."""
        if self.up and self._protocol is not None:
            self._protocol.send_ping(b"")
            self._write_out()
        return True

    def close(self) -> None:
        self._stream.close()

    def _write_out(self) -> str | None:
        assert self._protocol is not None
        for data in self._protocol.data_to_send():
            if data and (error := self._stream.write(data)):
                return error
        return None

    def _deliver(self, data: bytes) -> None:
        protocol = self._protocol
        assert protocol is not None
        protocol.receive_data(data)
        received_ns = now_ns()
        for event in protocol.events_received():
            if isinstance(event, Response):
                if protocol.handshake_exc is None and self._shaken is not None and not self._shaken.done():
                    self._shaken.set_result(None)
            elif isinstance(event, Frame):
                self._on_frame(event, received_ns)
        if self._stream.is_open:
            self._write_out()
        if protocol.state in (State.CLOSING, State.CLOSED) or protocol.handshake_exc or protocol.parser_exc:
            error = protocol.handshake_exc or protocol.parser_exc
            self._inbox.bad += protocol.parser_exc is not None
            if self._stream.is_open:
                self._stream.close()
                self._ended(f"WebSocket: {error}" if error else "closed by the PBX")

    def _on_frame(self, frame: Frame, received_ns: int) -> None:
        if frame.opcode is Opcode.PONG:
            self.pongs += 1
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._parts += bytes(frame.data)  # the protocol bounds the whole of a message's frames, too
            if frame.fin:
                whole, self._parts = self._parts, b""
                if whole.strip(b"\r\n"):
                    self._inbox.take(whole, received_ns)

    def _ended(self, why: str) -> None:
        if self._shaken is None:
            self._inbox.down(why)
        elif not self._shaken.done():
            self._shaken.set_exception(FlowFailed(why))
