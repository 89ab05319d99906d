"""What the user agents promise: 5,000 registered clients in one process in 300 MB, and messages parsed in no time.

    python -m benchmarks.clients [--runs 3] [--clients 5000] [--transport tls]

The registrar is a process of its own (tests/registrar.py): its memory does not count, its processor does, so the time
to register is an upper bound. The peer of a client's memory is a bare TLS connection of the same Python: a socket and
its TLS state.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from benchmarks.figures import Figure, figure
from harness.clients.sip.agent import Account, Behaviour, UserAgent
from harness.clients.sip.flow import Inbox
from harness.clients.sip.message import parse, request, response
from harness.clients.sip.stream import Stream
from harness.errors import HarnessError
from harness.results import TransportName
from tests.registrar import DOMAIN, HOST, PASSWORD, Registrar

BESIDE = 50
MEMORY_MB = 300.0
OK = response(
    parse(
        request(
            "REGISTER",
            "sip:pbx.test",
            [
                ("Via", "SIP/2.0/TLS 198.18.0.9:40000;branch=z9hG4bK0123456789abcdef;rport=40000;received=198.18.0.9"),
                ("From", "<sip:1000@pbx.test>;tag=12345678"),
                ("To", "<sip:1000@pbx.test>"),
                ("Call-ID", "0123456789abcdef"),
                ("CSeq", "2 REGISTER"),
            ],
        )
    ),
    200,
    "OK",
    to_tag="87654321",
    headers=[("Contact", "<sip:1000@198.18.0.9:40000;transport=tls>;expires=600"), ("Server", "kamailio (5.6.3)")],
)
"""What a registrar says most of all."""


def figures(*, runs: int, clients: int, transport: TransportName) -> list[Figure]:
    """About half a minute per run."""
    held = [_held(clients, transport, bare=False) for _ in range(runs)]
    bare = _held(clients, transport, bare=True) if transport in ("tcp", "tls") else None
    peer = {} if bare is None else {"peer": f"bare {transport} connections", "peer_value": round(bare["rss_mb"], 1)}
    rounds = [_parse_us() for _ in range(max(runs, 3))]
    name = f"{clients}_clients_{transport}"
    return [
        figure(f"{name}_rss_mb", [one["rss_mb"] for one in held], unit="MB", target=MEMORY_MB, **peer),
        figure(f"{name}_register_s", [one["took_s"] for one in held]),
        figure("client_kb", [one["client_kb"] for one in held], unit="kB"),
        figure("parse_us", rounds, unit="us"),
    ]


def _held(clients: int, transport: TransportName, *, bare: bool) -> dict[str, float]:
    """In a fresh process, so that nothing else is in its memory."""
    with _registrar(transport) as port:
        argv = [sys.executable, "-m", "benchmarks.clients", "--hold", str(port), "--transport", transport]
        argv += ["--clients", str(clients), *(["--bare"] if bare else [])]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise HarnessError(f"{clients} clients: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextmanager
def _registrar(transport: TransportName) -> Iterator[int]:
    argv = [sys.executable, "-m", "benchmarks.clients", "--serve", "--transport", transport]
    server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.stdin.close()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()


async def _serve(transport: TransportName) -> None:
    """Until nobody holds the other end of stdin."""
    registrar = Registrar()
    await registrar.start(transport)
    print(registrar.ports[transport], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def _hold(port: int, transport: TransportName, clients: int, *, bare: bool) -> None:
    before_kb = _rss_kb()
    began = time.monotonic()
    side_by_side = asyncio.Semaphore(BESIDE)
    held: list[object] = []

    async def one(n: int) -> None:
        async with side_by_side:
            held.append(await (_connection(port, transport) if bare else _client(port, transport, n)))

    await asyncio.gather(*(one(n) for n in range(clients)))
    took_s = time.monotonic() - began
    gc.collect()
    rss_kb = _rss_kb()
    print(json.dumps({"rss_mb": rss_kb / 1024, "client_kb": (rss_kb - before_kb) / clients, "took_s": took_s}))


async def _client(port: int, transport: TransportName, n: int) -> UserAgent:
    agent = UserAgent(
        account=Account(user=str(1000 + n), password=PASSWORD, domain=DOMAIN),
        to=(HOST, port),
        local_ip=HOST,
        behaviour=Behaviour(transport=transport, expires_s=3600, keepalive_s=30.0),
    )
    await agent.start()
    return agent


async def _connection(port: int, transport: TransportName) -> Stream:
    stream = Stream(tls=transport == "tls", take=lambda data: None, ended=lambda why: None)
    await stream.connect(to=(HOST, port), local_ip=HOST, timeout_s=30.0)
    return stream


def _parse_us(times: int = 5000) -> float:
    inbox = Inbox(lambda message, at_ns: None, lambda why, at_ns: None)
    began = time.perf_counter()
    for _ in range(times):
        inbox.take(OK, 0)
    took_us = (time.perf_counter() - began) / times * 1e6
    if inbox.bad or parse(OK).code != 200:
        raise HarnessError("the message that is timed was refused")
    return took_us


def _rss_kb() -> int:
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--transport", choices=get_args(TransportName), default="tls")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--hold", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if args.serve:
        asyncio.run(_serve(args.transport))
    elif args.hold:
        asyncio.run(_hold(args.hold, args.transport, args.clients, bare=args.bare))
    else:
        try:
            found = figures(runs=args.runs, clients=args.clients, transport=args.transport)
        except HarnessError as error:
            print(error, file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        for one in found:
            print(one.line())
        raise SystemExit(0 if all(one.met for one in found) else 1)


if __name__ == "__main__":
    main()
