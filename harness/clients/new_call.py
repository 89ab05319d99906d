"""The new-call clock: does a call set up now get audio both ways? One caller, one callee, a call each period.

    python -m harness.clients.new_call --to 203.0.113.1:5060 --domain pbx.test --caller 1998 --callee 1999 --out FILE

The callee registers once, at the start. Each call is one INVITE, never repeated, and overlaps freely with the others.
ok: both ends heard two frames of each other's own audio within the deadline. fail: a final answer of 300 and up, an
ICMP error, a BYE. info: the deadline passed; `reached` says how far it got. The password comes from the environment
(PBX_CHAOS_SIP_PASSWORD), so that no list of processes shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
from pathlib import Path
from typing import Any

from harness.clients import open_loop
from harness.clients.call import Call, Ended, Line, Outcome
from harness.clients.callee import Callee, mark
from harness.clients.media import Audio, Ports, Token
from harness.clients.open_loop import Turn
from harness.clients.recorder import Recorder
from harness.clients.shooting import address
from harness.clients.sip.dialog import Invitation
from harness.clients.sip.digest import Credentials
from harness.clients.sip.message import BadMessage, Header, Message, parse, response
from harness.clients.sip.registration import register
from harness.clients.sip.transport import Address, Datagram, UdpSocket, local_address_towards
from harness.clock import NS_PER_S, now_ns

PASSWORD = "PBX_CHAOS_SIP_PASSWORD"

RECORD_EVERY = 10
"""Of so many calls one asks the PBX to record it, where its profile says how."""

LINGER_NS = 5 * NS_PER_S
"""How long after its deadline a call is still cleaned up when an answer comes."""


class NewCallProbe:
    """Places the calls and listens at both ends. Needs a running event loop; the callee is registered by then."""

    def __init__(
        self,
        *,
        to: Address,
        domain: str,
        caller: Credentials,
        callee: str,
        deadline_s: float,
        recorder: Recorder,
        caller_udp: UdpSocket,
        callee_udp: UdpSocket,
        record: Header | None = None,
    ) -> None:
        self.bad = 0
        self._record = record
        self._to = to
        self._domain = domain
        self._user = caller.user
        self._callee_user = callee
        self._deadline_s = deadline_s
        self._recorder = recorder
        self._run = secrets.token_bytes(8)
        self._udp = caller_udp
        self._ports = Ports(caller_udp.local[0])
        self._line = Line(credentials=caller, send=lambda data: caller_udp.send(data, to))
        self._callee = Callee(callee_udp, user=callee, run=self._run, ports=self._ports, on_audio=self._callee_heard)
        self._calls: dict[str, Call] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(caller_udp.fileno(), self.read)

    @property
    def idle(self) -> bool:
        return all(call.outcome is not None for call in self._calls.values())

    @property
    def open_calls(self) -> int:
        """Calls and legs still known, the decided ones that linger included."""
        return len(self._calls) + self._callee.legs

    def send(self, turn: Turn) -> None:
        self._forget()
        session = mark(self._run, turn.n)
        try:
            udp = self._ports.open()
        except OSError as error:
            at_ns = now_ns()
            self._recorder.invoke(at_ns, turn.value())
            self._recorder.end("fail", at_ns, {"n": turn.n, "reached": "sent"}, error=f"no free port: {error}")
            return
        token = Token(run=self._run, role="A", n=turn.n)
        audio = Audio(udp, token=token, on_token=lambda heard, at_ns: self._caller_heard(session, heard, at_ns))
        call = Call(
            n=turn.n,
            session=session,
            invitation=self._invitation(session, turn.n),
            line=self._line,
            audio=audio,
            deadline_s=self._deadline_s,
            decided=self._decided,
            late=self._late,
            ended=self._ended,
        )
        self._calls[session] = call
        sent = call.start()
        self._recorder.invoke(sent.before_ns, turn.value() | {"send_ms": sent.took_ms})
        if sent.error:
            call.not_sent(sent)
            return
        open_loop.call_at_ns(self._loop, call.deadline_ns, self._expire, call)

    def read(self) -> None:
        """Everything the caller's socket holds; nothing that comes in stops the loop."""
        for datagram in self._udp.receive():
            try:
                message = parse(datagram.data)
            except BadMessage:
                self.bad += 1
                continue
            call = self._calls.get(message.call_id.partition("@")[0])
            if message.is_response:
                if call is not None:
                    call.on_response(message, datagram.received_ns)
            else:
                self._on_request(message, datagram, call)
        self._read_refusals()

    def close(self) -> None:
        self._loop.remove_reader(self._udp.fileno())
        self._udp.close()
        self._callee.close()

    def _recorded(self, n: int) -> tuple[Header, ...]:
        """What the INVITE of a call carries to be recorded; nothing for most."""
        return (self._record,) if self._record and n % RECORD_EVERY == 0 else ()

    def _invitation(self, session: str, n: int) -> Invitation:
        host, port = self._udp.local
        return Invitation(
            local=self._udp.local,
            uri=f"sip:{self._callee_user}@{self._domain}",
            from_=f"<sip:{self._user}@{self._domain}>;tag={secrets.token_hex(4)}",
            to=f"<sip:{self._callee_user}@{self._domain}>",
            call_id=f"{session}@{host}",
            contact=f"<sip:{self._user}@{host}:{port}>",
            extra=self._recorded(n),
        )

    def _on_request(self, message: Message, datagram: Datagram, call: Call | None) -> None:
        if message.method == "ACK":
            return
        code, reason = (200, "OK") if call or message.method == "OPTIONS" else (481, "Call/Transaction Does Not Exist")
        if message.method == "INVITE" and call:
            code, reason = 488, "Not Acceptable Here"
        self._udp.send(response(message, code, reason, to_tag=secrets.token_hex(4)), datagram.source)
        if message.method == "BYE" and call:
            call.on_hang_up(datagram.received_ns)

    def _caller_heard(self, session: str, token: Token, received_ns: int) -> None:
        call = self._calls.get(session)
        if call is not None and token.role == "B" and token.n == call.n:
            call.on_audio("B", received_ns)

    def _callee_heard(self, n: int, received_ns: int) -> None:
        call = self._calls.get(mark(self._run, n))
        if call is not None:
            call.on_audio("A", received_ns)

    def _expire(self, call: Call) -> None:
        if call.outcome is None:  # what the kernel had in time counts, also when this process comes late
            self._callee.read()
            self.read()
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

    def _read_refusals(self) -> None:
        marked = re.compile(re.escape(mark(self._run, 0)[:-1]).encode() + rb"\d+")
        for refusal in self._udp.refusals():
            found = marked.search(refusal.data)
            call = self._calls.get(found.group(0).decode()) if found else None
            if call is not None:
                call.on_refused_packet(refusal.name, refusal.received_ns)

    def _forget(self) -> None:
        at_ns = now_ns()
        self._callee.forget(at_ns)
        for session in [s for s, call in self._calls.items() if call.over(at_ns, linger_ns=LINGER_NS)]:
            del self._calls[session]


def header(text: str) -> Header:
    """`Name: value` as a header."""
    name, _, value = text.partition(":")
    return name.strip(), value.strip()


async def _probe(args: argparse.Namespace) -> None:
    open_loop.be_punctual()
    stop = open_loop.stop_on_signals()
    password = os.environ.get(PASSWORD, "")
    host = args.local or local_address_towards(args.to)
    callee_udp, caller_udp = UdpSocket((host, 0)), UdpSocket((host, 0))
    registered = register(
        callee_udp, to=args.to, domain=args.domain, credentials=Credentials(user=args.callee, password=password)
    )
    recorder = Recorder(args.out, process=args.process, f="new_call")
    recorder.note("registration", registered.accepted_ns, {"user": args.callee, "expires_s": registered.expires_s})
    probe = NewCallProbe(
        to=args.to,
        domain=args.domain,
        caller=Credentials(user=args.caller, password=password),
        callee=args.callee,
        deadline_s=args.deadline_s,
        recorder=recorder,
        caller_udp=caller_udp,
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
    parser.add_argument("--local", metavar="IP", help="address to use (default: the route's)")
    parser.add_argument("--period-s", type=float, default=0.1)
    parser.add_argument("--deadline-s", type=float, default=1.0)
    parser.add_argument("--process", default="new_call")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"))
    open_loop.main(_probe(parser.parse_args()))


if __name__ == "__main__":
    main()
