"""A single-shot clock on TCP against a peer that does one thing each time, over real sockets on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import history
from harness.clients.open_loop import Turn
from harness.clients.options import Options
from harness.clients.recorder import Recorder
from harness.clients.single_shot import SingleShot
from harness.clients.sip.message import parse, response
from harness.clients.stream_road import StreamRoad
from harness.history import Op, Pair

DEADLINE_S = 0.06

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(code: int, *, after_s: float = 0.0, noise: bytes = b"") -> Peer:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(after_s)
        writer.write(noise + response(parse(asked), code, "Whatever", to_tag="t"))
        await reader.read()

    return serve


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


@dataclass(frozen=True, kw_only=True)
class Seen:
    ops: list[Op]
    connections: int
    """Still open at the end."""

    accepted: int
    bad: int

    @property
    def ends(self) -> list[tuple[str, str | None]]:
        found: list[Pair] = history.pairs(self.ops, "options")
        return [(pair.end.type, pair.end.error) for pair in found if pair.end]


def observe(tmp_path: Path, peer: Peer | None, *, sends: int = 1, linger_s: float = 0.0) -> Seen:
    """`sends` probes, 5 ms apart, to a peer that does this with each connection; None: to a closed port."""
    out = tmp_path / "options.jsonl"

    async def go() -> Seen:
        accepted = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal accepted
            accepted += 1
            assert peer is not None
            try:
                await peer(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        target = server.sockets[0].getsockname()
        if peer is None:
            server.close()
            await server.wait_closed()
        recorder = Recorder(out, process="options", f="options")
        roads: list[StreamRoad] = []

        def road(shots: SingleShot) -> StreamRoad:
            made = StreamRoad(shots, transport="tcp", to=target, local_ip="127.0.0.1", deadline_s=DEADLINE_S)
            roads.append(made)
            return made

        probe = SingleShot(
            road=road, exchange=lambda: Options(domain="pbx.test"), deadline_s=DEADLINE_S, recorder=recorder
        )
        for n in range(sends):
            probe.send(Turn(n=n, slip_ms=0.0, skipped=0, slipped=False))
            await asyncio.sleep(0.005)
        while not probe.idle:
            await asyncio.sleep(0.005)
        await asyncio.sleep(linger_s)
        connections, bad = roads[0].connections, probe.counts.bad
        probe.close()
        recorder.close()
        server.close()
        return Seen(ops=list(history.read(out)), connections=connections, accepted=accepted, bad=bad)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("peer", "end"),
    [
        (answering(200), ("ok", None)),
        (answering(503), ("fail", "503 Whatever")),
        (silent, ("info", f"no answer within {DEADLINE_S:g} s")),
        (hanging_up, ("fail", "connection lost: closed by the PBX")),
        (answering(200, after_s=2 * DEADLINE_S), ("info", f"no answer within {DEADLINE_S:g} s")),
        (None, ("fail", "ECONNREFUSED")),
    ],
    ids=["answers", "refuses", "is silent", "hangs up", "is late", "is not there"],
)
def test_a_peer_that(tmp_path: Path, peer: Peer | None, end: tuple[str, str | None]) -> None:
    seen = observe(tmp_path, peer)
    assert seen.ends == [end]
    assert seen.connections == 0, "an attempt that is decided has given its connection back"


def test_each_attempt_has_a_connection_of_its_own(tmp_path: Path) -> None:
    seen = observe(tmp_path, answering(200), sends=5)
    assert seen.ends == [("ok", None)] * 5
    assert seen.accepted == 5


def test_a_late_answer_finds_nobody_any_more(tmp_path: Path) -> None:
    seen = observe(tmp_path, answering(200, after_s=1.5 * DEADLINE_S), linger_s=DEADLINE_S)
    assert [op.f for op in seen.ops] == ["options", "options"]


def test_what_is_no_message_is_counted(tmp_path: Path) -> None:
    seen = observe(tmp_path, answering(200, noise=b"SIP/2.0 nonsense\r\nContent-Length: 0\r\n\r\n"))
    assert (seen.ends, seen.bad) == ([("ok", None)], 1)
