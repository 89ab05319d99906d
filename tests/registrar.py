"""A minimal registrar and proxy for user agents under test: digest, Record-Route, four transports, all in one loop.

It is stateless but for its bindings: each is a way to send to one client. What goes through it is recorded, and it can
be told to lose messages, to drop every connection, or to forget its nonces.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import secrets
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from harness.clients.sip.digest import Credentials, answer, challenge_of
from harness.clients.sip.framer import PING, PONG, Framer
from harness.clients.sip.message import BadMessage, Header, Message, parse, response, uri_of
from harness.results import TransportName

HOST = "127.0.0.1"
PASSWORD = "secret-of-all"
DOMAIN = "pbx.test"

Send = Callable[[bytes], None]


@dataclass(kw_only=True)
class Registrar:
    """`ports` by transport once started. `lose` decides which messages never arrive: it is given each one that comes
    in. `seen` has every message that came in, as text of its first line."""

    algorithm: str = "SHA-256"
    min_expires_s: int = 0
    lose: Callable[[Message], bool] = lambda message: False
    ports: dict[TransportName, int] = field(default_factory=dict)
    bindings: dict[str, dict[str, Send]] = field(default_factory=dict)
    seen: list[Message] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)
    _senders: dict[str, Send] = field(default_factory=dict)
    _transports: list[Any] = field(default_factory=list)
    _open: set[Any] = field(default_factory=set)
    _servers: list[Any] = field(default_factory=list)

    async def start(self, *transports: TransportName) -> None:
        for transport in transports:
            await getattr(self, f"_start_{transport}")()

    async def stop(self) -> None:
        self.drop()
        for server in self._servers:
            server.close()
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)

    def drop(self) -> None:
        """Every connection ends at once."""
        for writer in list(self._open):
            writer.transport.abort()

    def methods(self) -> list[str]:
        return [message.method or str(message.code) for message in self.seen]

    async def _start_udp(self) -> None:
        registrar = self

        class Protocol(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
                registrar.take(data, lambda out: self.transport.sendto(out, source), source, "UDP")

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Protocol, local_addr=(HOST, 0))
        self._transports.append(transport)
        self.ports["udp"] = transport.get_extra_info("sockname")[1]

    async def _start_tcp(self) -> None:
        await self._stream("tcp", None)

    async def _start_tls(self) -> None:
        await self._stream("tls", certificate())

    async def _stream(self, transport: TransportName, context: ssl.SSLContext | None) -> None:
        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._open.add(writer)
            framer = Framer()
            source = writer.get_extra_info("peername")
            try:
                while data := await reader.read(65536):
                    for frame in framer.feed(data):
                        if frame == PING:
                            writer.write(PONG)
                        elif frame != PONG:
                            self.take(frame, writer.write, source, transport.upper())
            except OSError:
                pass
            finally:
                self._open.discard(writer)
                writer.close()

        server = await asyncio.start_server(serve_one, HOST, 0, ssl=context)
        self._servers.append(server)
        self.ports[transport] = server.sockets[0].getsockname()[1]

    async def _start_wss(self) -> None:
        async def serve_one(connection: ServerConnection) -> None:
            tasks: set[asyncio.Task[None]] = set()

            def send(data: bytes) -> None:
                task = asyncio.ensure_future(tell(data))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            async def tell(data: bytes) -> None:
                with suppress(ConnectionClosed):
                    await connection.send(data, text=True)

            self._open.add(connection)
            try:
                with suppress(ConnectionClosed):
                    async for text in connection:
                        data = text.encode() if isinstance(text, str) else text
                        self.take(data, send, connection.remote_address, "WSS")
            finally:
                self._open.discard(connection)

        server = await serve(
            serve_one, HOST, 0, ssl=certificate(), subprotocols=[Subprotocol("sip")], close_timeout=0.1
        )
        self._servers.append(server)
        self.ports["wss"] = next(iter(server.sockets)).getsockname()[1]

    # --- what a proxy does -------------------------------------------------------------------------------------------

    def take(self, data: bytes, reply: Send, source: tuple[str, int], transport: str) -> None:
        try:
            message = parse(data)
        except BadMessage:
            return
        self.seen.append(message)
        if self.lose(message):
            return
        if message.is_response:
            self._back(message)
        elif message.method == "REGISTER":
            self._register(message, reply, source)
        elif message.method == "OPTIONS" and message.uri == f"sip:{DOMAIN}":
            reply(response(message, 200, "OK", to_tag="p"))
        else:
            self._forward(message, reply, transport)

    def _register(self, message: Message, reply: Send, source: tuple[str, int]) -> None:
        user = uri_of(message.get("to") or "").partition(":")[2].partition("@")[0]
        if not self._proven(message, user):
            nonce = secrets.token_hex(8)
            self.nonces.add(nonce)
            demand = f'Digest realm="{DOMAIN}", nonce="{nonce}", algorithm={self.algorithm}, qop="auth"'
            reply(response(message, 401, "Unauthorized", to_tag="r", headers=[("WWW-Authenticate", demand)]))
            return
        expires = int(message.get("expires") or 0)
        if 0 < expires < self.min_expires_s:
            headers = [("Min-Expires", str(self.min_expires_s))]
            reply(response(message, 423, "Interval Too Brief", to_tag="r", headers=headers))
            return
        bound = self.bindings.setdefault(user, {})
        for contact in message.all("contact"):
            bound.pop(uri_of(contact), None)
            if expires and ";expires=0" not in contact:
                bound.clear()
                bound[uri_of(contact)] = reply
        kept: list[Header] = [("Contact", f"<{uri}>;expires={expires}") for uri in bound]
        seen_via = f"{message.all('via')[0]};received={source[0]}".replace(";rport", f";rport={source[1]}")
        shown = Message(headers=(("via", seen_via), *message.headers[1:]), method=message.method, uri=message.uri)
        reply(response(shown, 200, "OK", to_tag="r", headers=kept))

    def _proven(self, message: Message, user: str) -> bool:
        given = message.get("authorization") or ""
        nonce = given.partition('nonce="')[2].partition('"')[0]
        if nonce not in self.nonces:
            return False
        count = int(given.partition("nc=")[2].partition(",")[0] or "0", 16)
        cnonce = given.partition('cnonce="')[2].partition('"')[0]
        demand = f'Digest realm="{DOMAIN}", nonce="{nonce}", algorithm={self.algorithm}, qop="auth"'
        asked = Message(headers=(("www-authenticate", demand),), code=401)
        right = answer(
            challenge_of(asked),
            Credentials(user=user, password=PASSWORD),
            method="REGISTER",
            uri=message.uri,
            count=count,
            cnonce=cnonce,
        )
        return right[1] == given

    def _forward(self, message: Message, reply: Send, transport: str) -> None:
        """Downstream: with a Via of our own; in a dialog along its route, else to whoever is registered."""
        top = message.all("via")[0]
        branch = "z9hG4bK" + hashlib.sha256(f"{message.branch}{top}".encode()).hexdigest()[:16]
        self._senders[branch] = reply
        user = message.uri.partition(":")[2].partition("@")[0]
        uri, send = message.uri, self._by_contact(message.uri)
        if send is None:
            uri, send = next(iter(self.bindings.get(user, {}).items()), (message.uri, None))
        if send is None:
            if message.method != "ACK":
                reply(response(message, 404, "Not Found", to_tag="n"))
            return
        headers: list[Header] = [("Via", f"SIP/2.0/{transport} {HOST};branch={branch}")]
        if message.method == "INVITE" and not message.to_tag:
            headers.append(("Record-Route", f"<sip:{HOST};lr>"))
        headers += [(name, value) for name, value in message.headers if name not in ("route", "content-length")]
        send(_bytes(f"{message.method} {uri} SIP/2.0", headers, message.body))

    def _back(self, message: Message) -> None:
        vias = message.all("via")
        send = self._senders.get(message.branch)
        if send is None or len(vias) < 2:
            return
        rest = [(name, value) for name, value in message.headers if name not in ("via", "content-length")]
        headers = [*(("via", via) for via in vias[1:]), *rest]
        send(_bytes(f"SIP/2.0 {message.code} {message.reason}", headers, message.body))

    def _by_contact(self, uri: str) -> Send | None:
        return next((bound[uri] for bound in self.bindings.values() if uri in bound), None)


def _bytes(start: str, headers: list[Header], body: bytes) -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@cache
def certificate() -> ssl.SSLContext:
    """A server's context with a certificate that only it believes in."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, DOMAIN)])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "both.pem"
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(private + cert.public_bytes(pem))
        context.load_cert_chain(file)
    return context


def free_port() -> int:
    """A TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
