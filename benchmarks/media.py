"""What the media engine promises: steady audio of 50 calls, and 100 calls in one process at well under one core.

    python -m benchmarks.media [--runs 3] [--seconds 10]

Both ends of every call are legs of one engine, over the loopback. The peer of the CPU figure is a bare loop that sends
and receives as many packets with the same system calls and judges nothing: what Python and the kernel take anyway.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, figure
from harness import history
from harness.clients.media import Token
from harness.clients.open_loop import be_punctual
from harness.clients.rtp.control import Leg, LegState, MediaEngine
from harness.clients.rtp.marks import Mark
from harness.clients.rtp.silence import Floor, noise_floor
from harness.clients.rtp.tone import tone_of_call
from harness.clients.sip.transport import SO_TIMESTAMPNS
from harness.clock import now_ns
from harness.errors import HarnessError

HOST = "127.0.0.1"
RUN = b"benchrun"
SETTLE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Talk:
    """One run: the pauses between right packets, the engine's share of a core, what was lost and not sent."""

    floor: Floor
    cores: float
    lost: int
    skipped: int
    send_late_p99_ms: float


async def talk(calls: int, *, seconds: float, tones: bool = False) -> Talk:
    """`calls` calls with audio both ways, measured after they have settled."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "media.jsonl"
        engine = await MediaEngine.start(out=out)
        try:
            legs: list[Leg] = []
            for n in range(calls):
                legs += await _call(engine, n, tones=tones)
            await asyncio.sleep(SETTLE_S)
            began_ns, began_cpu_s = now_ns(), _cpu_s(engine.pid)
            await asyncio.sleep(seconds)
            ended_ns, ended_cpu_s = now_ns(), _cpu_s(engine.pid)
            states = [await engine.state(leg) for leg in legs]
        finally:
            await engine.stop()
        floor = noise_floor(history.read(out), from_ns=began_ns, to_ns=ended_ns)
    if floor is None or floor.n < 0.9 * calls * 2 * 50 * (seconds - 2):  # the seconds at both ends are not whole
        raise HarnessError(f"{calls} calls for {seconds:g} s: {floor.n if floor else 0} packets were heard")
    return Talk(
        floor=floor,
        cores=(ended_cpu_s - began_cpu_s) / ((ended_ns - began_ns) / 1e9),
        lost=sum(state.lost for state in states),
        skipped=sum(state.skipped for state in states),
        send_late_p99_ms=max(_late_ms(state) for state in states),
    )


def bare_cores(packets_per_s: int, *, seconds: float) -> float:
    """The share of a core that a loop of sendto and recvmsg_into takes for as many packets, 20 at a time."""
    ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        end.bind((HOST, 0))
    data, buffer = bytearray(172), bytearray(2048)
    rounds = round(packets_per_s * seconds / len(ends))
    began = time.process_time()
    for _ in range(rounds):
        for end in ends:
            end.sendto(data, end.getsockname())
        for end in ends:
            end.recvmsg_into([buffer], 64)
    took_s = time.process_time() - began
    for end in ends:
        end.close()
    return took_s / seconds


def figures(*, runs: int = 3, seconds: float = 10.0) -> list[Figure]:
    """About 3 * `runs` * `seconds` seconds."""
    fifty = [_told("50 calls", asyncio.run(talk(50, seconds=seconds))) for _ in range(runs)]
    tones = [_told("50 calls with tones", asyncio.run(talk(50, seconds=seconds, tones=True))) for _ in range(runs)]
    hundred = [_told("100 calls", asyncio.run(talk(100, seconds=seconds))) for _ in range(runs)]
    bare = [bare_cores(10_000, seconds=2.0) for _ in range(runs)]
    late = [run.send_late_p99_ms for run in hundred]
    return [
        figure("media_50_calls_gap_p999", [run.floor.p999_ms for run in fifty], unit="ms", target=60.0),
        figure("media_50_calls_lost", [float(run.lost + run.skipped) for run in fifty], unit="", target=0.0),
        figure("media_50_tone_calls_cores", [run.cores for run in tones], unit="cores", target=0.6),
        figure("media_100_calls_gap_p999", [run.floor.p999_ms for run in hundred], unit="ms", target=60.0),
        figure("media_100_calls_send_late_p99", late, unit="ms", target=10.0),
        figure(
            "media_100_calls_cores",
            [run.cores for run in hundred],
            unit="cores",
            target=0.6,
            peer="bare loop",
            peer_value=round(sorted(bare)[len(bare) // 2], 3),
        ),
    ]


async def _call(engine: MediaEngine, n: int, *, tones: bool) -> tuple[Leg, Leg]:
    caller, callee = Leg(call=f"c{n}", side="caller"), Leg(call=f"c{n}", side="callee")
    one: Mark = tone_of_call(n) if tones else Token(run=RUN, role="A", n=n)
    other: Mark = tone_of_call(n).other if tones else Token(run=RUN, role="B", n=n)
    at_caller = await engine.open(caller, local_ip=HOST, mark=one)
    at_callee = await engine.open(callee, local_ip=HOST, mark=other)
    engine.send(caller, at_callee)
    engine.send(callee, at_caller)
    return caller, callee


def _told(what: str, run: Talk) -> Talk:
    print(f"  {what}: {run}", file=sys.stderr, flush=True)
    return run


def _late_ms(state: LegState) -> float:
    return state.send_late_ms["p99"]


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.media", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    be_punctual()
    try:
        measured = figures(runs=args.runs, seconds=args.seconds)
    except HarnessError as error:
        raise SystemExit(f"bench: {error}") from None
    print("\n".join(one.line() for one in measured))
    raise SystemExit(0 if all(one.met for one in measured) else 1)


if __name__ == "__main__":
    main()
