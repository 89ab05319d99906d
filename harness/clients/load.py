"""Background calls: SIPp as caller and callee with scenarios of our own, its statistics as ops. Never a judge.

    python -m harness.clients.load --to 203.0.113.1:5060 --domain pbx.test --callers 1100-1149 --callee 1150 \\
        --rate-cps 5 --hold-s 10 --out FILE

Runs in a client machine's network namespace, both SIPp in containers of the client image. The callee is registered
once. `--audio`: each caller plays a tone and the callee echoes it; else the calls are signalling only.
SIPp speaks UDP here (Debian's has no TLS), and says nothing about whether a call has audio or was recovered.

Op `load`, once a second, of the caller's side: {target_cps, cps, current, created, ok, failed, retransmissions, …};
`created` and `*_total` count from the start, the others are of that second. SIGTERM ends it: no new calls, at most
`GRACE_S` for those that are up. The password comes from the environment (PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.clients import open_loop
from harness.clients.new_call import PASSWORD
from harness.clients.programs import Program, unmet
from harness.clients.recorder import Recorder
from harness.clients.rtp.tone import frame
from harness.clients.shooting import address
from harness.clients.sip.digest import Credentials
from harness.clients.sip.registration import register
from harness.clients.sip.transport import Address, UdpSocket, local_address_towards
from harness.clock import WallOffset, now_ns
from harness.errors import InfrastructureError

__all__ = ["unmet"]

SCENARIOS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "sipp"
INSIDE = "/load"
"""The folder for statistics, as the containers see it."""

GRACE_S = 5.0
TONE_HZ = 450
_PLAY = '<nop><action><exec rtp_stream="/etc/load/tone.ulaw,-1,0"/></action></nop>'
_COLUMNS = {
    "TargetRate": "target_cps",
    "CallRate(P)": "cps",
    "CurrentCall": "current",
    "TotalCallCreated": "created",
    "SuccessfulCall(P)": "ok",
    "SuccessfulCall(C)": "ok_total",
    "FailedCall(P)": "failed",
    "FailedCall(C)": "failed_total",
    "Retransmissions(P)": "retransmissions",
    "Retransmissions(C)": "retransmissions_total",
}
"""SIPp's columns -> ours. (P): since the line before, (C): since the start."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked for: `rate_cps` calls each second, from `callers` in turn to `callee`, each `hold_s` long."""

    to: Address
    domain: str
    callers: Sequence[str]
    callee: str
    password: str = field(repr=False)
    rate_cps: float
    hold_s: float
    limit: int
    audio: bool


class Statistics:
    """SIPp's statistics file (-trace_stat), read while it grows: semicolons, a header line first."""

    def __init__(self) -> None:
        self._header: list[str] | None = None
        self._torn = ""

    def feed(self, text: str) -> list[dict[str, str]]:
        """The lines that are complete, by column."""
        *lines, self._torn = (self._torn + text).split("\n")
        rows = []
        for line in lines:
            fields = line.split(";")
            if self._header is None:
                self._header = fields
            elif len(fields) >= len(self._header) - 1:  # the header's last semicolon ends a line, too
                rows.append(dict(zip(self._header, fields, strict=False)))
        return rows


def figures(row: dict[str, str]) -> dict[str, float]:
    """A line of SIPp's statistics as the value of a `load` op; columns that this SIPp does not have are left out."""
    value: dict[str, float] = {}
    for theirs, ours in _COLUMNS.items():
        try:
            number = float(row[theirs])
        except (KeyError, ValueError):
            continue
        value[ours] = int(number) if number.is_integer() else round(number, 3)
    return value


def wall_s(row: dict[str, str]) -> float:
    """When SIPp wrote a line, in seconds since the epoch (the last of the three ways in which it says so)."""
    return float(row["CurrentTime"].split("\t")[-1])


def scenario(name: str, **values: str) -> bytes:
    """A scenario of ours with its placeholders filled in; `ValueError` when one is left."""
    text = (SCENARIOS / f"{name}.xml").read_text()
    for key, value in values.items():
        text = text.replace(f"{{{{{key.upper()}}}}}", value)
    rest = text.partition("-->")[2]
    if "{{" in rest:
        raise ValueError(f"{name}.xml: {rest[rest.index('{{') :][:20]} was not filled in")
    return text.encode()


def injection(callers: Iterable[str], password: str) -> bytes:
    """The callers and their credentials, in turn: a file, so that no list of processes shows the password."""
    lines = [f"{user};[authentication username={user} password={password}]" for user in callers]
    return "\n".join(["SEQUENTIAL", *lines, ""]).encode()


def extensions(text: str) -> tuple[str, ...]:
    """`1100-1149`, or one alone."""
    first, _, last = text.partition("-")
    try:
        return tuple(str(n) for n in range(int(first), int(last or first) + 1))
    except ValueError:
        raise argparse.ArgumentTypeError(f"not extensions: {text!r}") from None


def caller_argv(load: Load, *, local_ip: str) -> list[str]:
    argv = ["sipp", f"{load.to[0]}:{load.to[1]}", "-sf", "/etc/load/caller.xml", "-inf", "/etc/load/callers.csv"]
    argv += ["-s", load.callee, "-i", local_ip, "-mi", local_ip, "-t", "u1", "-nostdin", "-r", f"{load.rate_cps:g}"]
    argv += ["-l", str(load.limit), "-trace_stat", "-stf", f"{INSIDE}/caller.csv", "-fd", "1"]
    return [*argv, "-default_behaviors", "all,-bye,-abortunexp"]


def callee_argv(load: Load, *, local_ip: str, port: int, media_port: int) -> list[str]:
    argv = ["sipp", f"{load.to[0]}:{load.to[1]}", "-sf", "/etc/load/callee.xml", "-i", local_ip, "-p", str(port)]
    argv += ["-mi", local_ip, "-mp", str(media_port), "-t", "u1", "-nostdin", "-rtp_echo"]
    return [*argv, "-default_behaviors", "all,-bye,-abortunexp"]


class Running:
    """The two SIPp, and what the caller has told so far."""

    def __init__(self, load: Load, recorder: Recorder, *, folder: Path) -> None:
        self._load = load
        self._recorder = recorder
        self._file = folder / "caller.csv"
        self._folder = folder
        self._read = 0
        self._statistics = Statistics()
        self._n = 0
        self._programs: list[Program] = []

    def start(self) -> None:
        """Register the callee, start both; `InfrastructureError` when that fails."""
        load, local_ip = self._load, local_address_towards(self._load.to)
        udp, media = UdpSocket((local_ip, 0)), UdpSocket((local_ip, 0))
        credentials = Credentials(user=load.callee, password=load.password)
        try:
            register(udp, to=load.to, domain=load.domain, credentials=credentials)
        finally:
            udp.close()
            media.close()
        files = {"/etc/load/callee.xml": scenario("callee", user=load.callee)}
        argv = callee_argv(load, local_ip=local_ip, port=udp.local[1], media_port=media.local[1])
        self._programs.append(Program.start("load-callee", argv, files=files))
        files = {
            "/etc/load/caller.xml": scenario(
                "caller",
                domain=load.domain,
                hold_ms=str(round(load.hold_s * 1000)),
                media_port="[rtpstream_audio_port]" if load.audio else "[media_port]",
                play=_PLAY if load.audio else "",
            ),
            "/etc/load/callers.csv": injection(load.callers, load.password),
            "/etc/load/tone.ulaw": frame(TONE_HZ, "PCMU") * 50,
        }
        argv = caller_argv(load, local_ip=local_ip)
        self._programs.append(Program.start("load-caller", argv, files=files, folders={self._folder: INSIDE}))

    def check(self) -> None:
        """`InfrastructureError` when one of them has ended by itself: the load is not what it should be."""
        for program in self._programs:
            if not program.running:
                raise InfrastructureError(f"SIPp ended with {program.exit_code}: {program.last_words()}")

    def tell(self) -> None:
        """The lines that the caller has written since."""
        if not self._file.exists():
            return
        with self._file.open() as file:
            file.seek(self._read)
            text = file.read()
            self._read = file.tell()
        offset = WallOffset.measure()
        for row in self._statistics.feed(text):
            value: dict[str, Any] = {"n": self._n, **figures(row)}
            self._recorder.note("load", min(offset.monotonic_ns(wall_s(row)), now_ns()), value)
            self._n += 1

    def finish(self) -> None:
        """No new calls; those that are up may end."""
        if self._programs:
            self._programs[-1].signal("SIGUSR1")

    @property
    def ended(self) -> bool:
        return not self._programs or not self._programs[-1].running

    def close(self) -> None:
        for program in self._programs:
            program.stop()


async def _run(args: argparse.Namespace) -> None:
    stop = open_loop.stop_on_signals()
    load = Load(
        to=args.to,
        domain=args.domain,
        callers=args.callers,
        callee=args.callee,
        password=os.environ.get(PASSWORD, ""),
        rate_cps=args.rate_cps,
        hold_s=args.hold_s,
        limit=args.limit or max(1, round(args.rate_cps * args.hold_s * 2)),
        audio=args.audio,
    )
    recorder = Recorder(args.out, process=args.process, f="load")
    with tempfile.TemporaryDirectory(prefix="pbx-chaos-load-") as folder:
        running = Running(load, recorder, folder=Path(folder))
        try:
            await asyncio.to_thread(running.start)
            while not stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1)
                running.tell()
                if not stop.is_set():
                    await asyncio.to_thread(running.check)
            await asyncio.to_thread(running.finish)
            deadline_s = asyncio.get_running_loop().time() + GRACE_S
            while not await asyncio.to_thread(lambda: running.ended):
                if asyncio.get_running_loop().time() > deadline_s:
                    break
                await asyncio.sleep(0.2)
            running.tell()
        finally:
            await asyncio.to_thread(running.close)
            recorder.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.clients.load", description=__doc__)
    parser.add_argument("--to", type=address, required=True, metavar="IP:PORT")
    parser.add_argument("--domain", required=True)
    parser.add_argument("--callers", type=extensions, required=True, metavar="FIRST-LAST", help="call in turn")
    parser.add_argument("--callee", required=True, help="extension that is called, by all of them")
    parser.add_argument("--rate-cps", type=float, default=1.0, help="new calls per second")
    parser.add_argument("--hold-s", type=float, default=10.0)
    parser.add_argument("--limit", type=int, help="calls at the same time (default: twice rate times hold)")
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--process", default="load")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"))
    open_loop.main(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
