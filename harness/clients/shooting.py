"""The processes of the single-shot clocks: arguments, recorder, road, and the open loop until SIGTERM."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness.clients import open_loop
from harness.clients.recorder import Recorder
from harness.clients.road import Road, Shots, UdpRoad
from harness.clients.single_shot import Exchange, SingleShot, not_used
from harness.clients.sip.transport import Address, UdpSocket, local_address_towards
from harness.clients.stream_road import StreamRoad
from harness.results import TRANSPORTS, clock_id


def address(text: str) -> Address:
    """`IP:PORT`, or `IP` for port 5060."""
    host, _, port = text.partition(":")
    try:
        return host, int(port or 5060)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an address: {text!r}") from None


def add_arguments(parser: argparse.ArgumentParser, *, period_s: float, process: str) -> None:
    parser.add_argument("--to", type=address, required=True, metavar="IP:PORT")
    parser.add_argument("--domain", help="SIP domain to ask for (default: the address)")
    parser.add_argument("--transport", choices=TRANSPORTS, default="udp")
    parser.add_argument("--local", metavar="IP", help="address to send from (default: the route's)")
    parser.add_argument("--period-s", type=float, default=period_s)
    parser.add_argument("--deadline-s", type=float, default=0.5)
    parser.add_argument("--process", default=process)
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"))


def run(args: argparse.Namespace, *, f: str, exchange: Callable[[], Exchange]) -> None:
    """Shoot until told to stop; the ops are those of the clock `f` on the transport asked for."""
    open_loop.main(_shoot(args, f=clock_id(f, args.transport), exchange=exchange))


def road(args: argparse.Namespace, shots: Shots, *, local_ip: str) -> Road:
    """The way to the PBX that the arguments ask for."""
    if args.transport == "udp":
        return UdpRoad(shots, udp=UdpSocket((local_ip, 0)), to=args.to)
    return StreamRoad(shots, transport=args.transport, to=args.to, local_ip=local_ip, deadline_s=args.deadline_s)


async def _shoot(args: argparse.Namespace, *, f: str, exchange: Callable[[], Exchange]) -> None:
    open_loop.be_punctual()
    stop = open_loop.stop_on_signals()
    local = args.local or local_address_towards(args.to)
    recorder = Recorder(args.out, process=args.process, f=f)

    probe = SingleShot(
        road=partial(road, args, local_ip=local), exchange=exchange, deadline_s=args.deadline_s, recorder=recorder
    )
    try:
        await open_loop.run(probe, period_s=args.period_s, stop=stop)
    finally:
        probe.close()
        recorder.close()
    if words := not_used(probe.counts):
        print(words, file=sys.stderr)
