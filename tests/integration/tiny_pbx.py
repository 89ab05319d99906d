"""A registrar and proxy of a hundred lines, to try the probes on without a PBX. It keeps no transactions and repeats
nothing, so whatever a test drops is really lost. Audio flows directly between the clients.

    python -m tests.integration.tiny_pbx IP PORT      serves until it is killed
"""

from __future__ import annotations

import re
import secrets
import socket
import sys

from harness.clients.sip.digest import Credentials, answer, challenge_of
from harness.clients.sip.message import Header, Message, parse, response, uri_of

PASSWORD = "tiny-1"
DOMAIN = "pbx.test"
_URI = re.compile(r"sip:(?:([^@;>]+)@)?([^:;>]+)(?::(\d+))?")


class TinyPbx:
    """Answers OPTIONS, challenges REGISTER and INVITE, forwards the rest along Contact, Route and Via."""

    def __init__(self, ip: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ip, port))
        self._self = f"{ip}:{port}"
        self._nonce = secrets.token_hex(8)
        self._contacts: dict[str, str] = {}

    def serve(self) -> None:
        while True:
            data, source = self._socket.recvfrom(65535)
            message = parse(data)
            if message.is_response:
                self._send_back(message)
            elif message.method in ("REGISTER", "INVITE") and not message.to_tag and not self._proven(message):
                self._challenge(message, source)
            elif message.method == "REGISTER":
                self._contacts[_user(message.get("to") or "")] = uri_of(message.get("contact") or "")
                self._reply(message, source, 200, "OK", [("Expires", "3600")])
            elif message.method == "OPTIONS":
                self._reply(message, source, 200, "OK")
            else:
                self._forward(message, source)

    def _forward(self, message: Message, source: tuple[str, int]) -> None:
        """To the next hop of a dialog, or to who registered."""
        target = message.uri if message.to_tag else self._contacts.get(_user(message.uri), "")
        if message.method == "ACK" and target.endswith(f"@{DOMAIN}"):
            return  # of a refusal, and the refusal came from here
        if not target:
            self._reply(message, source, 404, "Not Found")
            return
        own: list[Header] = [("via", f"SIP/2.0/UDP {self._self};branch=z9hG4bK{secrets.token_hex(6)}")]
        if message.method == "INVITE":
            own.append(("record-route", f"<sip:{self._self};lr>"))
        rest = [h for h in message.headers if h[0] != "route"]
        self._write(f"{message.method} {target} SIP/2.0", [*own, *rest], message.body, _address(target))

    def _send_back(self, message: Message) -> None:
        vias = message.all("via")
        host, _, port = vias[1].split(" ", 1)[1].partition(";")[0].partition(":")
        rest = [h for h in message.headers if h[0] != "via"]
        headers = [("via", via) for via in vias[1:]] + rest
        self._write(f"SIP/2.0 {message.code} {message.reason}", headers, message.body, (host, int(port)))

    def _proven(self, message: Message) -> bool:
        name = "authorization" if message.method == "REGISTER" else "proxy-authorization"
        given = message.get(name) or ""
        user, uri = (re.search(rf'{key}="([^"]*)"', given) for key in ("username", "uri"))
        if user is None or uri is None or f'nonce="{self._nonce}"' not in given:
            return False
        challenge = challenge_of(parse(self._demand(message)))
        right = answer(challenge, Credentials(user=user[1], password=PASSWORD), method=message.method, uri=uri[1])
        proof = re.search(r'response="(\w+)"', given)
        return proof is not None and proof[0] in right[1]

    def _challenge(self, message: Message, source: tuple[str, int]) -> None:
        self._socket.sendto(self._demand(message), source)

    def _demand(self, message: Message) -> bytes:
        code, name = (401, "WWW-Authenticate") if message.method == "REGISTER" else (407, "Proxy-Authenticate")
        asked = (name, f'Digest realm="{DOMAIN}", nonce="{self._nonce}"')
        return response(message, code, "Prove it", to_tag="tiny", headers=[asked])

    def _reply(
        self, message: Message, to: tuple[str, int], code: int, reason: str, headers: list[Header] | None = None
    ) -> None:
        self._socket.sendto(response(message, code, reason, to_tag="tiny", headers=headers or ()), to)

    def _write(self, start: str, headers: list[Header], body: bytes, to: tuple[str, int]) -> None:
        lines = [start, *(f"{name}: {value}" for name, value in headers)]
        self._socket.sendto("\r\n".join([*lines, "", ""]).encode() + body, to)


def _user(text: str) -> str:
    found = _URI.search(text)
    return (found[1] or "") if found else ""


def _address(uri: str) -> tuple[str, int]:
    found = _URI.search(uri)
    assert found, uri
    return found[2], int(found[3] or 5060)


if __name__ == "__main__":
    TinyPbx(sys.argv[1], int(sys.argv[2])).serve()
