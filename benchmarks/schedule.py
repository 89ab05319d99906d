"""500 OPTIONS a second on schedule beside 100 calls with audio, SIPp at the same rate as peer; the media noise floor.

    python -m benchmarks.schedule [--runs 3] [--seconds 8] [--cell NAME --slot N]

On a whole cell, all of it on this host: first 50 calls are held through the PBX and the pauses between their packets
counted (the noise floor), then 50 more, and our OPTIONS probe and SIPp send by turns, from the same client machine, on
the same path. Both are timed with one yardstick, a packet capture in the client's network namespace: how late each
OPTIONS was on the grid of the mean rate that the earliest of them lies on. What the probe says of itself is beside it.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import docker
from docker.errors import DockerException

from benchmarks.figures import Figure, figure
from harness import history, images
from harness.cell import cell as cells
from harness.cell.cell import Cell
from harness.cell.policy import load_policy
from harness.cell.profile import load_profile
from harness.clients import processes
from harness.clients.companions import HeldCalls
from harness.clients.load import SCENARIOS
from harness.clients.offers import port_of
from harness.clients.probes import Spec, sip_options
from harness.clients.rtp.silence import Floor, noise_floor
from harness.clock import now_ns
from harness.command import wait_for
from harness.errors import HarnessError
from harness.history import Op
from harness.quantiles import nearest_rank
from harness.region.process import stop_region
from harness.region.router import client_name
from harness.topology import CELL_LABEL, ROLE_LABEL, Topology
from tests.capture import packets

RATE = 500
HALF_A_PERIOD_MS = 1e3 / RATE / 2
SETTLE_S = 3.0
UP_S = 30.0
FILLED_S = 1.5
"""tcpdump hands on what it has every second."""

FIRST, MORE = HeldCalls(kind="ip_phone", count=50), HeldCalls(kind="desktop", count=50)
OPTIONS_ONLY = "udp[8:4] = 0x4f505449"
"""BPF: a UDP payload that begins with "OPTI"."""


@dataclass(frozen=True, kw_only=True)
class Sends:
    """One turn of one sender: how late its sends were on the wire, and how many there were."""

    n: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def figures(*, runs: int, seconds: float, cell: str, slot: int) -> list[Figure]:
    """About 40 s and twice `runs` * `seconds`."""
    topology = Topology(cell=f"{cell}-schedule", slot=slot)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pbx-chaos-bench-")))
        built = images.ensure(docker.from_env(), say=lambda text: print(text, file=sys.stderr), programs=True)
        site = stack.enter_context(_cell(topology, built))
        out = folder / "history.d"
        stack.enter_context(_calls(site, FIRST, out))
        floors = [_floor(out, seconds=seconds) for _ in range(runs)]
        stack.enter_context(_calls(site, MORE, out))
        time.sleep(SETTLE_S)
        told, ours, peers = [], [], []
        for number in range(runs):
            with _capture(site, folder / f"own-{number}.pcap") as captured:
                told.append(_probe(site, folder / f"run-{number}", seconds=seconds))
            ours.append(_sends("OPTIONS probe", captured, of=len(told[-1])))
            with _capture(site, folder / f"peer-{number}.pcap") as captured:
                _sipp(site, built.client, seconds=seconds)
            peers.append(_sends("SIPp", captured, of=round(RATE * seconds)))
        _still_up(out, FIRST, MORE)
    peer = {"peer": f"SIPp at {RATE}/s", "peer_value": round(sorted(one.p99_ms for one in peers)[len(peers) // 2], 3)}
    bound = {"unit": "ms", "target": HALF_A_PERIOD_MS}
    return [
        figure("media_50_calls_pbx_gap_p999", [one.p999_ms for one in floors], unit="ms", target=60.0),
        figure("options_500_send_late_p99", [_p(_slips(ops), 0.99) for ops in told], **bound),
        figure("options_500_wire_late_p99", [one.p99_ms for one in ours], **bound, **peer),
        figure("options_500_skipped", [float(_skipped(ops)) for ops in told], unit="", target=0.0),
    ]


def lateness_ms(times_ns: Sequence[int]) -> list[float]:
    """How late each send was, in ms: behind the grid of their own mean rate on which the earliest of them lies.

    The rate is fitted (least squares), so that a sender whose clock of periods is a little off is not called late.
    """
    numbers = range(len(times_ns))
    mean_n, mean_ns = fmean(numbers), fmean(times_ns)
    spread = sum((n - mean_n) ** 2 for n in numbers)
    period_ns = sum((n - mean_n) * (at - mean_ns) for n, at in zip(numbers, times_ns, strict=True)) / spread
    behind = [(at - times_ns[0]) - n * period_ns for n, at in zip(numbers, times_ns, strict=True)]
    earliest = min(behind)
    return [(one - earliest) / 1e6 for one in behind]


def _sends(who: str, capture: Path, *, of: int) -> Sends:
    """What the capture says of `of` sends; `HarnessError` when it missed some of them."""
    late = lateness_ms(sorted(packet.time_ns for packet in packets(capture)))
    if not 0.99 * of <= len(late) <= of:
        raise HarnessError(f"{who}: {of} OPTIONS were sent, {len(late)} are in the capture")
    found = Sends(n=len(late), p50_ms=_p(late, 0.5), p99_ms=_p(late, 0.99), max_ms=max(late))
    print(f"  {who}: {found}", file=sys.stderr, flush=True)
    return found


def _p(values: Sequence[float], part: float) -> float:
    return nearest_rank(sorted(values), part)


@contextmanager
def _cell(topology: Topology, built: images.Images) -> Iterator[Cell]:
    stop_region(topology)
    try:
        yield cells.up(
            topology,
            policy=load_policy("tuned"),
            profile=load_profile("stand-in"),
            images=built,
            progress=lambda _: None,
        )
    finally:
        stop_region(topology)


@contextmanager
def _calls(cell: Cell, spec: HeldCalls, out: Path) -> Iterator[None]:
    """The calls, up by then, until the end."""
    process = processes.start(spec, cell=cell, netns_pid=cell.client_pid(1), out_dir=out)

    def up() -> bool:
        process.check_alive()
        return any(op.value["up"] == spec.count for op in _beats(out, spec))

    try:
        wait_for(f"{spec.count} calls of {spec.kind}", up, timeout_s=UP_S, every_s=0.2)
        yield
    finally:
        process.stop()


def _beats(out: Path, spec: Spec) -> list[Op]:
    part = out / f"{spec.name}.jsonl"
    return [op for op in history.read(part) if op.f == spec.name] if part.exists() else []


def _still_up(out: Path, *specs: HeldCalls) -> None:
    """`HarnessError` when a call was lost: then less was measured than is said."""
    for spec in specs:
        last = _beats(out, spec)[-1]
        if last.value["up"] != spec.count:
            raise HarnessError(f"{last.value['up']} of {spec.count} calls of {spec.kind} were left at the end")


def _floor(out: Path, *, seconds: float) -> Floor:
    time.sleep(SETTLE_S)
    began_ns = now_ns()
    time.sleep(seconds)
    found = noise_floor(history.read(out / f"{FIRST.name}_media.jsonl"), from_ns=began_ns, to_ns=now_ns())
    if found is None:
        raise HarnessError(f"{FIRST.count} calls for {seconds:g} s: nothing was heard")
    print(f"  {FIRST.count} calls: {found}", file=sys.stderr, flush=True)
    return found


def _probe(cell: Cell, folder: Path, *, seconds: float) -> list[Op]:
    """Our probe for so long; what it tells of its sends."""
    spec = sip_options(period_s=1 / RATE)
    process = processes.start(spec, cell=cell, netns_pid=cell.client_pid(1), out_dir=folder / "history.d")
    time.sleep(seconds + 1)
    process.stop()
    return [op for op in history.read(folder / f"history.d/{spec.name}.jsonl") if op.type == "invoke"]


def _slips(sends: Sequence[Op]) -> list[float]:
    return [float(op.value["slip_ms"]) for op in sends]


def _skipped(sends: Sequence[Op]) -> int:
    return sum(op.value.get("skipped", 0) for op in sends)


def _sipp(cell: Cell, image: str | None, *, seconds: float) -> None:
    """SIPp in the same client machine, with its timer at its finest."""
    argv = ["sipp", f"{cell.public_ip}:{port_of(cell.profile, 'udp')}", "-sf", "/etc/load/options.xml", "-nostdin"]
    argv += ["-r", str(RATE), "-m", str(round(RATE * seconds)), "-l", "10000", "-timer_resol", "1", "-t", "u1"]
    client = docker.from_env()
    running = client.containers.run(
        image,
        argv,
        name=f"{cell.topology.cell}-sipp",
        network_mode=f"container:{client_name(cell.topology, 1)}",
        labels={CELL_LABEL: cell.topology.cell, ROLE_LABEL: "client"},
        volumes={str(SCENARIOS): {"bind": "/etc/load", "mode": "ro"}},
        detach=True,
    )
    try:
        ended = running.wait(timeout=seconds + 30)
        if ended["StatusCode"]:
            raise HarnessError(f"SIPp ended with {ended['StatusCode']}: {running.logs().decode()[-200:]}")
    finally:
        running.remove(force=True)


@contextmanager
def _capture(cell: Cell, path: Path) -> Iterator[Path]:
    """Every OPTIONS that leaves the client machine, with the kernel's time."""
    argv = ["nsenter", "-t", str(cell.client_pid(1)), "-n", "-m", "tcpdump", "-i", "any", "-n", "-Q", "out"]
    argv += ["-s", "128", "-w", "-", OPTIONS_ONLY]
    with path.open("wb") as out:
        tcpdump = subprocess.Popen(argv, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert tcpdump.stderr is not None
        try:
            wait_for("tcpdump to listen", partial(tcpdump.stderr.readline), timeout_s=5)
            yield path
            time.sleep(FILLED_S)
        finally:
            tcpdump.send_signal(signal.SIGTERM)
            tcpdump.communicate(timeout=10)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--cell", default="pbx-bench")
    parser.add_argument("--slot", type=int, default=13)
    args = parser.parse_args()
    try:
        found = figures(runs=args.runs, seconds=args.seconds, cell=args.cell, slot=args.slot)
    except (HarnessError, DockerException) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\n".join(one.line() for one in found))
    return 0 if all(one.met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
