"""SIP over secure WebSocket (RFC 7118): a message is a frame. The protocol is that of `websockets`, without its I/O."""

from __future__ import annotations

import asyncio
import secrets
import ssl

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from harness.clients.sip.flow import FlowFailed, Inbox, down
from harness.clients.sip.stream import BIGGEST, Stream, reason
from harness.clients.sip.transport import Address, Sent
from harness.clock import now_ns
from harness.results import TransportName


class WssFlow:
    """A WebSocket to the PBX over TLS. A browser knows no address of its own: Via and Contact name a random host in
    `.invalid` (RFC 7118 5)."""

    transport: TransportName = "wss"

    def __init__(self, *, to: Address, local_ip: str, inbox: Inbox) -> None:
        self.local: Address = (f"{secrets.token_hex(6)}.invalid", 0)
        self._to = to
        self._local_ip = local_ip
        self._inbox = inbox
        self._stream = Stream(tls=True)
        self._protocol: ClientProtocol | None = None
        self._shaken: asyncio.Future[None] | None = None

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
        self._stream.start(self._read)
        self._write_out()
        try:
            async with asyncio.timeout_at(until):
                await self._shaken
        except TimeoutError:
            self.close()
            raise FlowFailed(f"no WebSocket within {timeout_s:g} s") from None
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes) -> Sent:
        if not self.up or self._protocol is None:
            return down()
        before_ns = now_ns()
        self._protocol.send_text(data)
        error = self._write_out()
        if error is not None:
            self._end(error)
        return Sent(before_ns=before_ns, after_ns=now_ns(), error=error)

    def close(self) -> None:
        self._stream.close()

    def _write_out(self) -> str | None:
        assert self._protocol is not None
        for data in self._protocol.data_to_send():
            if data and (error := self._stream.write(data)):
                return error
        return None

    def _read(self) -> None:
        assert self._protocol is not None
        try:
            while self._stream.is_open and (data := self._stream.read()) != b"":
                if data is None:
                    self._end("closed by the PBX")
                    return
                self._protocol.receive_data(data)
                received_ns = now_ns()
                for event in self._protocol.events_received():
                    self._on_event(event, received_ns)
                self._write_out()
        except (OSError, ssl.SSLError) as error:
            self._end(reason(error))
        except WebSocketException as error:
            self._end(f"WebSocket: {error}")

    def _on_event(self, event: object, received_ns: int) -> None:
        assert self._protocol is not None
        if isinstance(event, Response):
            refused = self._protocol.handshake_exc
            if self._shaken is not None and not self._shaken.done():
                if refused is not None:
                    self._shaken.set_exception(FlowFailed(f"WebSocket: {refused}"))
                else:
                    self._shaken.set_result(None)
        elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._inbox.take(bytes(event.data), received_ns)
        elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
            self._end("closed by the PBX")

    def _end(self, why: str) -> None:
        was_up = self._stream.is_open
        self._stream.close()
        if self._shaken is not None and not self._shaken.done():
            self._shaken.set_exception(FlowFailed(why))
        elif was_up:
            self._inbox.down(why)
