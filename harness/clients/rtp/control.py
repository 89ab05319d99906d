"""How a measuring process drives its media engine: a child in the same network namespace, JSON lines over a socket."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.clients.rtp import marks
from harness.clients.rtp.g711 import Codec
from harness.clients.rtp.marks import Mark
from harness.clients.sip.transport import Address
from harness.errors import InfrastructureError

Side = Literal["caller", "callee"]

_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """One end of a call's audio: `side` is the end that we are."""

    call: str
    side: Side

    def __str__(self) -> str:
        return f"{self.call}/{self.side}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LegState:
    """What a leg has received and sent so far; times on CLOCK_MONOTONIC, None while nothing right came.

    `longest_gap` is (from_ns, to_ns) of the longest silence that has ended. The host's fault, not the network's:
    `overflowed` packets were not read in time, `skipped` were not sent in time, `unsent` were refused by the kernel.
    """

    received: int
    right: int
    foreign: int
    lost: int
    reordered: int
    duplicates: int
    first_ns: int | None
    last_ns: int | None
    since_last_ms: float | None
    longest_gap: tuple[int, int] | None
    overflowed: int
    jitter_ms: float | None
    ssrcs: int
    sent: int
    unsent: int
    skipped: int
    send_late_ms: Mapping[str, float]
    rtcp: Mapping[str, float | None]


@dataclass(kw_only=True)
class MediaEngine:
    """A running engine. Once it has died, everything raises `InfrastructureError`: nobody would be listening."""

    _process: subprocess.Popen[bytes] = field(repr=False)
    _reader: asyncio.StreamReader = field(repr=False)
    _writer: asyncio.StreamWriter = field(repr=False)
    _open: set[Leg] = field(default_factory=set)
    _pending: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _asked: int = 0
    _failed: str | None = None
    _stopping: bool = False
    _listening: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, *, out: Path, process: str = "media") -> MediaEngine:
        """Start one that writes its ops to `out`. What it complains of goes to our own standard error."""
        ours, theirs = socket.socketpair()
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-m", "harness.clients.rtp.engine", "--out", str(out), "--process", process],
                stdin=theirs.fileno(),
                start_new_session=True,  # Ctrl-C is for the one who holds the calls
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        engine = cls(_process=child, _reader=reader, _writer=writer)
        engine._listening = asyncio.create_task(engine._listen())
        return engine

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def failed(self) -> str | None:
        """Why it no longer listens; None while it does."""
        return None if self._stopping else self._failed

    async def open(self, leg: Leg, *, local_ip: str, mark: Mark, codec: Codec = "PCMU") -> Address:
        """Bind a leg's ports (even for RTP, the next for RTCP) and listen; where its audio is received.

        `mark` is what it sends; right to hear is that of the other end (`Token` of the other role, `Tone.other`).
        """
        asked = {"local_ip": local_ip, "mark": marks.to_json(mark), "codec": codec}
        host, port = (await self._ask("open", leg, **asked))["at"]
        self._open.add(leg)
        return host, port

    def send(self, leg: Leg, remote: Address, *, codec: Codec | None = None) -> None:
        """Send there from now on, at once and every 20 ms; of a leg that sends already, change the address or codec."""
        self._tell("send", leg, to=remote, codec=codec)

    def hold(self, leg: Leg) -> None:
        """Stop sending. The silence that the other leg of the call hears meanwhile is marked as `held`."""
        self._tell("hold", leg)

    def resume(self, leg: Leg) -> None:
        self._tell("resume", leg)

    async def heard(self, leg: Leg, *, frames: int = 2, timeout_s: float) -> int:
        """Wait for so many right frames in all; the kernel's time of the first. `TimeoutError` when they don't come."""
        answer = await asyncio.wait_for(self._ask("heard", leg, frames=frames), timeout_s)
        return int(answer["first_ns"])

    async def state(self, leg: Leg) -> LegState:
        return _state(await self._ask("state", leg))

    async def close(self, leg: Leg) -> LegState:
        """Silent, deaf, its ports given back, its `media_leg` written."""
        self._open.discard(leg)
        return _state(await self._ask("close", leg))

    async def stop(self, *, timeout_s: float = 10) -> None:
        """Close all legs and end it; idempotent. `InfrastructureError` when it had died or had to be killed."""
        if not self._stopping:
            self._stopping = True
            self._writer.close()
            if self._listening is not None:
                await asyncio.wait({self._listening}, timeout=timeout_s)
            try:
                code = await asyncio.to_thread(self._process.wait, timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise InfrastructureError(f"the media engine did not end within {timeout_s:g} s") from None
            if code != 0:
                raise InfrastructureError(f"the media engine ended with {code}")

    async def _ask(self, do: str, leg: Leg, **more: Any) -> dict[str, Any]:
        self._check()
        self._asked += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[self._asked] = answer
        self._write({"id": self._asked, "do": do, "leg": str(leg), **more})
        return await answer

    def _tell(self, do: str, leg: Leg, **more: Any) -> None:
        if leg not in self._open:
            raise ValueError(f"{leg} is not open")
        self._check()
        self._asked += 1
        self._write({"id": self._asked, "do": do, "leg": str(leg), **more})

    def _write(self, row: dict[str, Any]) -> None:
        self._writer.write(json.dumps(row).encode() + b"\n")

    def _check(self) -> None:
        if self._failed is not None:
            raise InfrastructureError(self._failed)
        if self._stopping:
            raise InfrastructureError("the media engine was stopped")

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                row = json.loads(line)
                answer = self._pending.pop(row["id"], None)
                if answer is None or answer.done():
                    continue
                if "error" in row:
                    answer.set_exception(InfrastructureError(f"the media engine: {row['error']}"))
                else:
                    answer.set_result(row)
        except OSError:
            pass  # the channel is gone, as at its end
        self._failed = f"the media engine (process {self.pid}) is gone"
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(InfrastructureError(self._failed))
        self._pending.clear()


def _state(row: dict[str, Any]) -> LegState:
    longest = row["longest"]
    return LegState(
        received=row["received"],
        right=row["right"],
        foreign=row["foreign"],
        lost=row["lost"],
        reordered=row["reordered"],
        duplicates=row["duplicates"],
        first_ns=row["first_ns"],
        last_ns=row["last_ns"],
        since_last_ms=row["since_last_ms"],
        longest_gap=(longest["from_ns"], longest["to_ns"]) if longest else None,
        overflowed=row["overflowed"],
        jitter_ms=row["jitter_ms"],
        ssrcs=len(row["ssrcs"]),
        sent=row["sent"],
        unsent=row["unsent"],
        skipped=row["skipped"],
        send_late_ms=row["send_late_ms"],
        rtcp=row["rtcp"],
    )
