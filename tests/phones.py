"""Phones for tests of a PBX: just enough SIP and RTP over UDP, in threads, on sockets the test made.

They are not the measuring clients (harness/clients): they judge nothing, and a test asks them what they saw.
"""

from __future__ import annotations

import re
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from harness.clients.sip.digest import Credentials, answer, challenge_of
from harness.clients.sip.message import Header, Message, parse, request, response, uri_of

Address = tuple[str, int]
MakeSocket = Callable[[], socket.socket]
FRAME_S = 0.02


@dataclass
class Media:
    """One end of a call's audio: sends a G.711 frame each 20 ms to the other, counts what comes in."""

    socket: socket.socket
    peer: Address | None = None
    received: int = 0
    sources: set[Address] = field(default_factory=set)
    _closed: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.socket.settimeout(0.2)
        for work in (self._send, self._receive):
            Thread(target=work, daemon=True).start()

    @property
    def local(self) -> Address:
        host, port = self.socket.getsockname()[:2]
        return str(host), int(port)

    def close(self) -> None:
        self._closed.set()

    def _send(self) -> None:
        ssrc, n = secrets.randbits(32), 0
        while not self._closed.wait(FRAME_S):
            if self.peer:
                frame = struct.pack("!BBHII", 0x80, 0, n & 0xFFFF, n * 160, ssrc) + b"\xd5" * 160
                try:
                    self.socket.sendto(frame, self.peer)
                except OSError:
                    continue
                n += 1

    def _receive(self) -> None:
        while not self._closed.is_set():
            try:
                data, source = self.socket.recvfrom(2048)
            except OSError:
                continue
            if len(data) >= 12 and data[1] & 0x7F == 0:
                self.received += 1
                self.sources.add(source)
        self.socket.close()


@dataclass
class Call:
    """An established dialog of one phone (RFC 3261, section 12)."""

    call_id: str
    local: str
    remote: str
    target: str
    route: list[str]
    media: Media
    cseq: int = 1
    ended: bool = False
    reinvited: int = 0


class Phone:
    """One extension on one UDP socket. `calls` has its dialogs by Call-ID, the ones it accepted included."""

    def __init__(self, user: str, *, password: str, domain: str, pbx: Address, make_socket: MakeSocket) -> None:
        self.user, self.domain, self.pbx = user, domain, pbx
        self._credentials = Credentials(user=user, password=password)
        self._make_socket, self._socket = make_socket, make_socket()
        self._socket.settimeout(0.2)
        self._answers: dict[str, list[Message]] = {}
        self._lock, self._closed = Lock(), Event()
        self.calls: dict[str, Call] = {}
        Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        for call in self.calls.values():
            call.media.close()
        self._closed.set()

    def register(self, *, expires_s: int = 3600) -> Message | None:
        """REGISTER, with the answer to the challenge."""
        aor = f"sip:{self.user}@{self.domain}"
        headers = [("Contact", self._contact), ("Expires", str(expires_s))]
        return self._authenticated("REGISTER", f"sip:{self.domain}", aor, secrets.token_hex(8), headers)[0]

    def options(self, *, timeout_s: float = 2) -> Message | None:
        uri = f"sip:{self.pbx[0]}"
        headers = self._dialog_headers(uri, secrets.token_hex(8), 1, "OPTIONS")
        return self._ask("OPTIONS", uri, headers, timeout_s=timeout_s)

    def call(self, extension: str, *, extra: tuple[Header, ...] = ()) -> tuple[Message | None, Call | None]:
        """INVITE; the final answer, and the call when it was a 200."""
        media = Media(self._make_socket())
        uri, call_id = f"sip:{extension}@{self.domain}", secrets.token_hex(8)
        headers = [("Contact", self._contact), ("Content-Type", "application/sdp"), *extra]
        final, sent = self._authenticated("INVITE", uri, uri, call_id, headers, body=_sdp(media.local))
        if final is None or final.code != 200:
            media.close()
            return final, None
        route = list(reversed(final.all("record-route")))
        call = Call(
            call_id=call_id,
            local=sent["From"],
            remote=final.get("to") or "",
            target=uri_of(final.get("contact") or ""),
            route=route,
            media=media,
            cseq=final.cseq[0],
        )
        media.peer = _media_address(final.body)
        self._send(request("ACK", call.target, self._in_dialog(call, "ACK")))
        self.calls[call_id] = call
        return final, call

    def hang_up(self, call: Call, *, timeout_s: float = 3) -> Message | None:
        """BYE; its final answer."""
        call.cseq += 1
        call.media.close()
        return self._ask("BYE", call.target, self._in_dialog(call, "BYE"), timeout_s=timeout_s)

    @property
    def _contact(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"<sip:{self.user}@{host}:{port}>"

    def _authenticated(
        self, method: str, uri: str, to: str, call_id: str, extra: list[Header], body: bytes = b""
    ) -> tuple[Message | None, dict[str, str]]:
        headers = self._dialog_headers(to, call_id, 1, method)
        first = self._ask(method, uri, headers + extra, body)
        if first is None or first.code not in (401, 407):
            return first, dict(headers)
        if method == "INVITE":
            self._send(request("ACK", uri, [*self._acknowledging(first, headers)]))
        again = self._dialog_headers(to, call_id, 2, method, sent_from=dict(headers)["From"])
        proof = answer(challenge_of(first), self._credentials, method=method, uri=uri)
        return self._ask(method, uri, [*again, proof, *extra], body), dict(again)

    def _acknowledging(self, refusal: Message, headers: list[Header]) -> list[Header]:
        """The ACK of a refused INVITE belongs to its transaction (RFC 3261, 17.1.1.3)."""
        kept = [(k, v) for k, v in headers if k not in ("To", "CSeq", "Via")]
        via = (refusal.all("via") or [""])[0]
        return [("Via", via), *kept, ("To", refusal.get("to") or ""), ("CSeq", f"{refusal.cseq[0]} ACK")]

    def _dialog_headers(
        self, to: str, call_id: str, number: int, method: str, sent_from: str | None = None
    ) -> list[Header]:
        mine = sent_from or f"<sip:{self.user}@{self.domain}>;tag={secrets.token_hex(4)}"
        return [
            ("Max-Forwards", "70"),
            ("From", mine),
            ("To", f"<{to}>"),
            ("Call-ID", call_id),
            ("CSeq", f"{number} {method}"),
        ]

    def _in_dialog(self, call: Call, method: str) -> list[Header]:
        head: list[Header] = [("Via", self._via()), ("Max-Forwards", "70")]
        head += [("Route", route) for route in call.route]
        return [
            *head,
            ("From", call.local),
            ("To", call.remote),
            ("Call-ID", call.call_id),
            ("CSeq", f"{call.cseq} {method}"),
        ]

    def _via(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK{secrets.token_hex(8)};rport"

    def _ask(
        self, method: str, uri: str, headers: list[Header], body: bytes = b"", *, timeout_s: float = 5
    ) -> Message | None:
        """The final answer to a request, sent again each 0.5 s; None when none came."""
        via = dict(headers).get("Via") or self._via()
        branch = re.search(r"branch=([^;]+)", via)
        assert branch is not None
        data = request(method, uri, [("Via", via), *((k, v) for k, v in headers if k != "Via")], body)
        deadline = time.monotonic() + timeout_s
        next_send = 0.0
        while time.monotonic() < deadline:
            if time.monotonic() >= next_send:
                self._send(data)
                next_send = time.monotonic() + 0.5
            with self._lock:
                final = next((m for m in self._answers.get(branch[1], []) if m.code >= 200), None)
            if final:
                return final
            self._closed.wait(0.005)
        return None

    def _send(self, data: bytes, to: Address | None = None) -> None:
        try:
            self._socket.sendto(data, to or self.pbx)
        except OSError:
            return  # a refusal of an earlier datagram, or nobody there: the caller sees no answer

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                data, source = self._socket.recvfrom(65535)
                message = parse(data)
            except (OSError, ValueError):
                continue
            if message.is_response:
                with self._lock:
                    self._answers.setdefault(message.branch, []).append(message)
            else:
                self._serve(message, source)
        self._socket.close()

    def _serve(self, asked: Message, source: Address) -> None:
        if asked.method == "INVITE":
            self._accept(asked, source)
        elif asked.method == "BYE":
            call = self.calls.get(asked.call_id)
            if call:
                call.ended = True
                call.media.close()
            self._send(response(asked, 200 if call else 481, "OK" if call else "Gone", to_tag="x"), source)
        elif asked.method != "ACK":
            self._send(response(asked, 200, "OK", to_tag="x"), source)

    def _accept(self, asked: Message, source: Address) -> None:
        call = self.calls.get(asked.call_id)
        if call is None:
            tag = secrets.token_hex(4)
            call = Call(
                call_id=asked.call_id,
                local=f"{asked.get('to')};tag={tag}",
                remote=asked.get("from") or "",
                target=uri_of(asked.get("contact") or ""),
                route=asked.all("record-route"),
                media=Media(self._make_socket()),
            )
            self.calls[asked.call_id] = call
        elif "tag=" in (asked.get("to") or ""):
            call.reinvited += 1
        call.media.peer = _media_address(asked.body)
        headers = [("Contact", self._contact), ("Content-Type", "application/sdp")]
        tag = call.local.rpartition("tag=")[2]
        self._send(response(asked, 200, "OK", to_tag=tag, headers=headers, body=_sdp(call.media.local)), source)


def _sdp(local: Address) -> bytes:
    host, port = local
    lines = ("v=0", f"o=- 1 1 IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0", f"m=audio {port} RTP/AVP 0")
    return ("\r\n".join((*lines, "a=rtpmap:0 PCMU/8000", "a=ptime:20")) + "\r\n").encode()


def _media_address(body: bytes) -> Address:
    text = body.decode()
    host, port = re.search(r"c=IN IP4 (\S+)", text), re.search(r"m=audio (\d+)", text)
    assert host and port, text
    return host[1], int(port[1])
