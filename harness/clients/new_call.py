"""The new-call clock: does a call set up now get audio both ways? One caller, one callee, a call each period.

    python -m harness.clients.new_call --to 203.0.113.1:5060 --domain pbx.test --caller 1998 --callee 1999 --out FILE

The callee registers once, at the start, and is a phone on UDP whatever the caller's transport (`--transport`, `--to`;
`--callee-to` is then where the callee registers). Each call is one INVITE, never repeated, on TCP, TLS or WSS over a
connection of its own, and overlaps freely with the others. ok: both ends heard two frames of each other's own audio
within the deadline. fail: a final answer of 300 and up, an ICMP error, a connection refused or lost, a BYE. info: the
deadline passed; `reached` says how far it got. The password comes from the environment (PBX_CHAOS_SIP_PASSWORD), so
that no list of processes shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.clients import open_loop, shooting
from harness.clients.call import Call, Ended, Line, Outcome
from harness.clients.callee import Callee, mark
from harness.clients.media import Audio, Ports, Token
from harness.clients.open_loop import Turn
from harness.clients.recorder import Recorder
from harness.clients.road import Road, Send
from harness.clients.shooting import address
from harness.clients.sip.dialog import Invitation
from harness.clients.sip.digest import Credentials
from harness.clients.sip.message import BadMessage, Header, Message, parse, response
from harness.clients.sip.registration import register
from harness.clients.sip.transport import CONTACT, Address, Sent, UdpSocket, local_address_towards
from harness.clock import NS_PER_S, now_ns
from harness.history import OpType
from harness.results import TRANSPORTS, clock_id

PASSWORD = "PBX_CHAOS_SIP_PASSWORD"

RECORD_EVERY = 10
"""Of so many calls one asks the PBX to record it, where its profile says how."""

LINGER_NS = 5 * NS_PER_S
"""How long after its deadline a call is still cleaned up when an answer comes."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """An attempt whose way to the PBX is being made."""

    session: str
    audio: Audio
    began_ns: int


class NewCallProbe:
    """Places the calls and listens at both ends. Needs a running event loop; the callee is registered by then.

    `road` makes the caller's way to the PBX, `local_ip` is the address of both ends' audio.
    """

    def __init__(
        self,
        *,
        road: Callable[[NewCallProbe], Road],
        domain: str,
        caller: Credentials,
        callee: str,
        deadline_s: float,
        recorder: Recorder,
        local_ip: str,
        callee_udp: UdpSocket,
        record: Header | None = None,
    ) -> None:
        self.bad = 0
        self._record = record
        self._domain = domain
        self._user = caller.user
        self._callee_user = callee
        self._deadline_s = deadline_s
        self._recorder = recorder
        self._run = secrets.token_bytes(8)
        self._marked = re.compile(re.escape(mark(self._run, 0)[:-1]).encode() + rb"\d+")
        self._ports = Ports(local_ip)
        self._line = Line(credentials=caller)
        self._callee = Callee(callee_udp, user=callee, run=self._run, ports=self._ports, on_audio=self._callee_heard)
        self._waiting: dict[int, _Waiting] = {}
        self._calls: dict[str, Call] = {}
        self._loop = asyncio.get_running_loop()
        self._road = road(self)

    @property
    def idle(self) -> bool:
        return not self._waiting and all(call.outcome is not None for call in self._calls.values())

    @property
    def open_calls(self) -> int:
        """Calls and legs still known, the decided ones that linger included."""
        return len(self._waiting) + len(self._calls) + self._callee.legs

    def send(self, turn: Turn) -> None:
        self._forget()
        n, began_ns = turn.n, now_ns()
        try:
            udp = self._ports.open()
        except OSError as error:
            self._recorder.invoke(began_ns, turn.value())
            self._recorder.end("fail", began_ns, {"n": n, "reached": "no port"}, error=f"no free port: {error}")
            return
        session, token = mark(self._run, n), Token(run=self._run, role="A", n=n)
        audio = Audio(udp, token=token, on_token=lambda heard, at_ns: self._caller_heard(session, heard, at_ns))
        self._waiting[n] = _Waiting(session=session, audio=audio, began_ns=began_ns)
        told: list[Sent] = []
        self._road.begin(n, started=lambda n, local, send: told.append(self._call(n, local, send)), failed=self.failed)
        sent = told[0] if told else None
        self._recorder.invoke(
            sent.before_ns if sent else began_ns, turn.value() | ({"send_ms": sent.took_ms} if sent else {})
        )
        if sent and sent.error:
            self._calls[session].not_sent(sent)
            return
        deadline_ns = self._calls[session].deadline_ns if sent else began_ns + round(self._deadline_s * NS_PER_S)
        open_loop.call_at_ns(self._loop, deadline_ns, self._expire, n)

    def datagram(self, data: bytes, *, received_ns: int, seen_ns: int, reply: Send) -> None:
        try:
            message = parse(data)
        except BadMessage:
            self.bad += 1
            return
        self.message(message, received_ns=received_ns, seen_ns=seen_ns, reply=reply)

    def message(self, message: Message, *, received_ns: int, seen_ns: int, reply: Send) -> None:
        """An answer goes to its call; a request is answered."""
        call = self._calls.get(message.call_id.partition("@")[0])
        if message.is_response:
            if call is not None:
                call.on_response(message, received_ns)
        else:
            self._on_request(message, received_ns, call, reply)

    def refused(self, data: bytes, name: str, received_ns: int) -> None:
        found = self._marked.search(data)
        call = self._calls.get(found.group(0).decode()) if found else None
        if call is not None:
            call.on_lost(f"ICMP: {name}", received_ns)

    def failed(self, n: int, at_ns: int, error: str) -> None:
        """The way of a call to the PBX could not be made, or is gone."""
        waiting = self._waiting.pop(n, None)
        call = self._calls.get(mark(self._run, n))
        if waiting is not None:
            self._give_up(n, waiting, "fail", max(at_ns, waiting.began_ns), error)
        elif call is not None:
            call.on_lost(error, at_ns)

    def unusable(self, bad: int) -> None:
        self.bad += bad

    def close(self) -> None:
        self._road.close()
        self._callee.close()

    def _call(self, n: int, local: Address, send: Send) -> Sent:
        """The way to the PBX is there: invite."""
        waiting = self._waiting.pop(n)
        call = Call(
            n=n,
            session=waiting.session,
            invitation=self._invitation(waiting.session, n, local),
            line=self._line,
            send=send,
            audio=waiting.audio,
            deadline_s=self._deadline_s,
            decided=self._decided,
            late=self._late,
            ended=self._ended,
        )
        self._calls[waiting.session] = call
        since_ns = None if self._road.transport == "udp" else waiting.began_ns
        return call.start(since_ns=since_ns)

    def _give_up(self, n: int, waiting: _Waiting, kind: OpType, at_ns: int, error: str) -> None:
        """Decide an attempt that has not even been sent."""
        waiting.audio.close()
        self._recorder.end(kind, at_ns, {"n": n, "reached": "connecting"}, error=error)
        self._road.end(n)

    def _recorded(self, n: int) -> tuple[Header, ...]:
        """What the INVITE of a call carries to be recorded; nothing for most."""
        return (self._record,) if self._record and n % RECORD_EVERY == 0 else ()

    def _invitation(self, session: str, n: int, local: Address) -> Invitation:
        host, port = local
        transport = self._road.transport
        return Invitation(
            local=local,
            uri=f"sip:{self._callee_user}@{self._domain}",
            from_=f"<sip:{self._user}@{self._domain}>;tag={secrets.token_hex(4)}",
            to=f"<sip:{self._callee_user}@{self._domain}>",
            call_id=f"{session}@{host}",
            contact=f"<sip:{self._user}@{host}:{port}{CONTACT[transport]}>",
            transport=transport,
            extra=self._recorded(n),
        )

    def _on_request(self, message: Message, received_ns: int, call: Call | None, reply: Send) -> None:
        if message.method == "ACK":
            return
        code, reason = (200, "OK") if call or message.method == "OPTIONS" else (481, "Call/Transaction Does Not Exist")
        if message.method == "INVITE" and call:
            code, reason = 488, "Not Acceptable Here"
        reply(response(message, code, reason, to_tag=secrets.token_hex(4)))
        if message.method == "BYE" and call:
            call.on_hang_up(received_ns)

    def _caller_heard(self, session: str, token: Token, received_ns: int) -> None:
        call = self._calls.get(session)
        if call is not None and token.role == "B" and token.n == call.n:
            call.on_audio("B", received_ns)

    def _callee_heard(self, n: int, received_ns: int) -> None:
        call = self._calls.get(mark(self._run, n))
        if call is not None:
            call.on_audio("A", received_ns)

    def _expire(self, n: int) -> None:
        waiting = self._waiting.pop(n, None)
        if waiting is not None:
            at_ns = waiting.began_ns + round(self._deadline_s * NS_PER_S)
            self._give_up(n, waiting, "info", at_ns, f"no connection within {self._deadline_s:g} s")
            return
        call = self._calls.get(mark(self._run, n))
        if call is None:
            return
        if call.outcome is None:  # what the kernel had in time counts, also when this process comes late
            self._callee.read()
            self._road.read()
            self._callee.listen()
            call.listen()
        call.expire()

    def _decided(self, call: Call, outcome: Outcome) -> None:
        self._callee.silence(call.n)
        self._recorder.end(outcome.kind, outcome.time_ns, outcome.value, error=outcome.error)

    def _late(self, call: Call, received_ns: int) -> None:
        value = {"n": call.n, "latency_ms": round((received_ns - call.sent_ns) / 1e6, 3)}
        self._recorder.late(received_ns, value)

    def _ended(self, call: Call, end: Ended) -> None:
        value: dict[str, Any] = {"n": call.n, "call_id": call.call_id, "code": end.code}
        value |= {"sdd_ms": end.sdd_ms, "sdt_ms": end.sdt_ms}
        if self._recorded(call.n):
            value["recorded"] = True
        self._recorder.note(f"{self._recorder.f}_bye", end.time_ns, value)

    def _forget(self) -> None:
        at_ns = now_ns()
        self._callee.forget(at_ns)
        for session in [s for s, call in self._calls.items() if call.over(at_ns, linger_ns=LINGER_NS)]:
            self._road.end(self._calls.pop(session).n)


def header(text: str) -> Header:
    """`Name: value` as a header."""
    name, _, value = text.partition(":")
    return name.strip(), value.strip()


async def _probe(args: argparse.Namespace) -> None:
    open_loop.be_punctual()
    stop = open_loop.stop_on_signals()
    password = os.environ.get(PASSWORD, "")
    host = args.local or local_address_towards(args.to)
    callee_udp = UdpSocket((host, 0))
    registered = register(
        callee_udp,
        to=args.callee_to or args.to,
        domain=args.domain,
        credentials=Credentials(user=args.callee, password=password),
    )
    recorder = Recorder(args.out, process=args.process, f=clock_id("new_call", args.transport))
    recorder.note("registration", registered.accepted_ns, {"user": args.callee, **registered.bound})
    probe = NewCallProbe(
        road=partial(shooting.road, args, local_ip=host),
        domain=args.domain,
        caller=Credentials(user=args.caller, password=password),
        callee=args.callee,
        deadline_s=args.deadline_s,
        recorder=recorder,
        local_ip=host,
        callee_udp=callee_udp,
        record=header(args.record) if args.record else None,
    )
    try:
        await open_loop.run(probe, period_s=args.period_s, stop=stop)
    finally:
        probe.close()
        recorder.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.clients.new_call", description=__doc__)
    parser.add_argument("--to", type=address, required=True, metavar="IP:PORT")
    parser.add_argument("--domain", required=True)
    parser.add_argument("--caller", required=True, help="extension that calls")
    parser.add_argument("--callee", required=True, help="extension that is called")
    parser.add_argument("--record", metavar="HEADER", help="'Name: value' that makes the PBX record a call")
    parser.add_argument("--transport", choices=TRANSPORTS, default="udp", help="of the caller")
    parser.add_argument("--callee-to", type=address, metavar="IP:PORT", help="where the callee registers, by UDP")
    parser.add_argument("--local", metavar="IP", help="address to use (default: the route's)")
    parser.add_argument("--period-s", type=float, default=0.1)
    parser.add_argument("--deadline-s", type=float, default=1.0)
    parser.add_argument("--process", default="new_call")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"))
    open_loop.main(_probe(parser.parse_args()))


if __name__ == "__main__":
    main()
