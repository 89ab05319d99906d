"""The called party: registered once, answers every call at once, plays its own audio, hangs up when told to.

It never re-registers: that a call still finds it after a failover is the PBX's doing. It answers a repeated INVITE with
the answer it gave, but repeats nothing on its own.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from harness.clients.media import Audio, Ports, Token
from harness.clients.sip.message import BadMessage, Header, Message, parse, response
from harness.clients.sip.sdp import BadSdp, audio_address, describe
from harness.clients.sip.transport import Address, Datagram, UdpSocket

UNKNOWN_CALL = 2**32 - 1
"""The number in a callee's audio until it knows which call it is in."""

FORGET_NS = 10_000_000_000
"""A leg without a BYE is given up after this."""

ALLOW: Header = ("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS")


@dataclass(kw_only=True)
class Leg:
    """One answered call."""

    audio: Audio
    answer: bytes
    began_ns: int


class Callee:
    """Needs a running event loop. `on_audio(n, received_ns)`: a frame of the caller's audio of call n was heard."""

    def __init__(self, udp: UdpSocket, *, user: str, run: bytes, ports: Ports, on_audio: Callable[[int, int], None]):
        self.bad = 0
        self._udp = udp
        self._run = run
        self._ports = ports
        self._on_audio = on_audio
        self._contact: Header = ("Contact", f"<sip:{user}@{udp.local[0]}:{udp.local[1]}>")
        self._mark = re.compile(re.escape(mark(run, 0)[:-1]).encode() + rb"(\d{1,9})\b")
        self._legs: dict[tuple[str, str], Leg] = {}
        asyncio.get_running_loop().add_reader(udp.fileno(), self.read)

    @property
    def legs(self) -> int:
        return len(self._legs)

    def read(self) -> None:
        """Everything the socket and the legs hold."""
        for datagram in self._udp.receive():
            try:
                message = parse(datagram.data)
            except BadMessage:
                self.bad += 1
                continue
            if not message.is_response:
                self._on_request(message, datagram)
        for _ in self._udp.refusals():
            pass

    def listen(self) -> None:
        """Hear what waits in the legs' sockets."""
        for leg in list(self._legs.values()):
            leg.audio.read()

    def silence(self, n: int) -> None:
        """Call n is decided: no more audio for it. Its leg stays until the BYE."""
        for leg in self._legs.values():
            if leg.audio.token.n == n:
                leg.audio.close()

    def forget(self, at_ns: int) -> None:
        """Give up the legs whose BYE never came."""
        for key in [key for key, leg in self._legs.items() if at_ns - leg.began_ns > FORGET_NS]:
            self._legs.pop(key).audio.close()

    def close(self) -> None:
        self.forget(1 << 63)
        asyncio.get_running_loop().remove_reader(self._udp.fileno())
        self._udp.close()

    def _on_request(self, message: Message, datagram: Datagram) -> None:
        key = (message.call_id, message.from_tag)
        leg = self._legs.get(key)
        if message.method == "INVITE":
            if leg is None and not message.to_tag:
                self._answer(message, datagram, key)
            elif leg is not None and not message.to_tag:
                self._udp.send(leg.answer, datagram.source)
            else:
                self._reply(message, datagram.source, 488 if leg else 481)
        elif message.method == "BYE":
            gone = self._legs.pop(key, None)
            if gone:
                gone.audio.close()
            self._reply(message, datagram.source, 200 if gone else 481)
        elif message.method != "ACK":
            self._reply(message, datagram.source, 200)

    def _answer(self, message: Message, datagram: Datagram, key: tuple[str, str]) -> None:
        try:
            remote = audio_address(message.body)
        except BadSdp:
            self._reply(message, datagram.source, 488)
            return
        found = self._mark.search(datagram.data)
        token = Token(run=self._run, role="B", n=int(found.group(1)) if found else UNKNOWN_CALL)
        try:
            socket = self._ports.open()
        except OSError:
            self._reply(message, datagram.source, 503)
            return
        audio = Audio(socket, token=token, on_token=lambda token, at_ns: self._heard(key, token, at_ns))
        tag = secrets.token_hex(4)
        body = describe(audio.local, session=mark(self._run, token.n))
        headers: list[Header] = [self._contact, ALLOW, ("Content-Type", "application/sdp")]
        answer = response(message, 200, "OK", to_tag=tag, headers=headers, body=body)
        self._legs[key] = Leg(audio=audio, answer=answer, began_ns=datagram.received_ns)
        self._udp.send(response(message, 180, "Ringing", to_tag=tag, headers=[self._contact]), datagram.source)
        self._udp.send(answer, datagram.source)
        audio.start(remote)

    def _heard(self, key: tuple[str, str], token: Token, received_ns: int) -> None:
        leg = self._legs.get(key)
        if leg is None or token.role != "A":
            return
        if leg.audio.token.n == UNKNOWN_CALL:  # the PBX changed every name the caller gave: its audio tells
            leg.audio.token = Token(run=self._run, role="B", n=token.n)
        if leg.audio.token.n == token.n:
            self._on_audio(token.n, received_ns)

    def _reply(self, message: Message, to: Address, code: int) -> None:
        reasons = {200: "OK", 481: "Call/Transaction Does Not Exist", 488: "Not Acceptable Here"}
        reason = reasons.get(code, "Service Unavailable")
        self._udp.send(response(message, code, reason, to_tag=secrets.token_hex(4), headers=[ALLOW]), to)


def mark(run: bytes, n: int) -> str:
    """How call n of a run names itself in its Call-ID and in the name of its media session."""
    return f"pbxcall-{run.hex()}-{n}"
