"""The OPTIONS clock: is the address answered by a PBX that says it serves? (RFC 3261 section 11)

    python -m harness.clients.options --to 203.0.113.1:5060 [--period-s 0.05] [--deadline-s 0.5] [--out FILE]

Open loop, single shot, over UDP. ok: a 2xx within the deadline. fail: any other final answer, or an ICMP error. info:
nothing in time; an answer after that is told as `options_late`. By hand it prints the ops until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.clients import open_loop
from harness.clients.open_loop import Turn
from harness.clients.recorder import Recorder
from harness.clients.sip.message import BadMessage, parse, request
from harness.clients.sip.transport import Address, UdpSocket, local_address_towards
from harness.clock import NS_PER_S

REMEMBERED = 10_000
"""Unanswered probes whose late answer is still recognised."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What came in and could not be used."""

    bad: int = 0
    stray: int = 0


class OptionsProbe:
    """Sends OPTIONS and judges the answers. Needs a running event loop."""

    def __init__(self, *, to: Address, domain: str, deadline_s: float, recorder: Recorder, udp: UdpSocket) -> None:
        self._to = to
        self._domain = domain
        self._deadline_ns = round(deadline_s * NS_PER_S)
        self._recorder = recorder
        self._udp = udp
        self._run = secrets.token_hex(4)
        self._branch_n = re.compile(rf"z9hG4bK-{self._run}-(\d+)")
        self._pending: dict[int, int] = {}
        self._expired: dict[int, int] = {}
        self.counts = Counts()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(udp.fileno(), self.read)

    @property
    def idle(self) -> bool:
        return not self._pending

    def send(self, turn: Turn) -> None:
        self._read_refusals()
        sent = self._udp.send(self._request(turn.n), self._to)
        self._recorder.invoke(sent.before_ns, turn.value() | {"send_ms": sent.took_ms})
        if sent.error:
            self._recorder.end("fail", sent.after_ns, {"n": turn.n}, error=f"not sent: {sent.error}")
            return
        self._pending[turn.n] = sent.before_ns
        open_loop.call_at_ns(self._loop, sent.before_ns + self._deadline_ns, self._expire, turn.n)

    def read(self) -> None:
        """Everything the socket holds; nothing that comes in stops the loop."""
        for datagram in self._udp.receive():
            try:
                message = parse(datagram.data)
            except BadMessage:
                self.counts = Counts(bad=self.counts.bad + 1, stray=self.counts.stray)
                continue
            found = self._branch_n.fullmatch(message.branch)
            if not message.is_response or not found:
                self.counts = Counts(bad=self.counts.bad, stray=self.counts.stray + 1)
            elif message.code >= 200:
                lag_ms = round((datagram.seen_ns - datagram.received_ns) / 1e6, 3)
                self._answered(int(found.group(1)), message.code, message.reason, datagram.received_ns, lag_ms)
        self._read_refusals()

    def close(self) -> None:
        self._loop.remove_reader(self._udp.fileno())
        self._udp.close()

    def _answered(self, n: int, code: int, reason: str, received_ns: int, lag_ms: float) -> None:
        if n in self._pending:
            sent_ns = self._pending.pop(n)
            received_ns = max(received_ns, sent_ns)
            value = {"n": n, "code": code, "latency_ms": _ms(received_ns - sent_ns), "seen_lag_ms": lag_ms}
            if received_ns - sent_ns > self._deadline_ns:
                self._end_late(n, sent_ns)
                self._recorder.late(received_ns, value)
            elif code < 300:
                self._recorder.end("ok", received_ns, value)
            else:
                self._recorder.end("fail", received_ns, value, error=f"{code} {reason}".strip())
        elif n in self._expired:
            sent_ns = self._expired.pop(n)
            self._recorder.late(received_ns, {"n": n, "code": code, "latency_ms": _ms(received_ns - sent_ns)})

    def _expire(self, n: int) -> None:
        if n in self._pending:
            self.read()  # what the kernel had in time counts, also when this process comes late
        if n in self._pending:
            sent_ns = self._pending.pop(n)
            self._end_late(n, sent_ns)
            self._expired[n] = sent_ns
            if len(self._expired) > REMEMBERED:
                self._expired.pop(next(iter(self._expired)))

    def _end_late(self, n: int, sent_ns: int) -> None:
        error = f"no answer within {self._deadline_ns / NS_PER_S:g} s"
        self._recorder.end("info", sent_ns + self._deadline_ns, {"n": n}, error=error)

    def _read_refusals(self) -> None:
        for refusal in self._udp.refusals():
            found = self._branch_n.search(refusal.data.decode("utf-8", "replace"))
            n = int(found.group(1)) if found else min(self._pending, default=-1)
            if n in self._pending:
                del self._pending[n]
                self._recorder.end("fail", refusal.received_ns, {"n": n}, error=f"ICMP: {refusal.name}")

    def _request(self, n: int) -> bytes:
        host, port = self._udp.local
        uri = f"sip:{self._domain}"
        headers = [
            ("Via", f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK-{self._run}-{n};rport"),
            ("Max-Forwards", "70"),
            ("From", f"<sip:probe@{self._domain}>;tag={self._run}"),
            ("To", f"<{uri}>"),
            ("Call-ID", f"{self._run}-{n}"),
            ("CSeq", "1 OPTIONS"),
            ("Contact", f"<sip:probe@{host}:{port}>"),
            ("Accept", "application/sdp"),
        ]
        return request("OPTIONS", uri, headers)


def address(text: str) -> Address:
    """`IP:PORT`, or `IP` for port 5060."""
    host, _, port = text.partition(":")
    try:
        return host, int(port or 5060)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an address: {text!r}") from None


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)


async def _probe(args: argparse.Namespace) -> None:
    open_loop.be_punctual()
    stop = open_loop.stop_on_signals()
    udp = UdpSocket((args.local or local_address_towards(args.to), 0))
    recorder = Recorder(args.out, process=args.process, f="options")
    domain = args.domain or args.to[0]
    probe = OptionsProbe(to=args.to, domain=domain, deadline_s=args.deadline_s, recorder=recorder, udp=udp)
    try:
        await open_loop.run(probe, period_s=args.period_s, stop=stop)
    finally:
        probe.close()
        recorder.close()
    if probe.counts != Counts():
        print(f"unusable: {probe.counts.bad} bad datagrams, {probe.counts.stray} stray ones", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.clients.options", description=__doc__)
    parser.add_argument("--to", type=address, required=True, metavar="IP:PORT")
    parser.add_argument("--domain", help="SIP domain to ask for (default: the address)")
    parser.add_argument("--local", metavar="IP", help="address to send from (default: the route's)")
    parser.add_argument("--period-s", type=float, default=0.05)
    parser.add_argument("--deadline-s", type=float, default=0.5)
    parser.add_argument("--process", default="options")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"))
    open_loop.main(_probe(parser.parse_args()))


if __name__ == "__main__":
    main()
