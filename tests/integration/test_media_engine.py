"""The media engine with real sockets on the loopback, tcpdump beside it as the witness of what was on the wire."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import history
from harness.clients.media import Token
from harness.clients.rtp.control import Leg, LegState, MediaEngine
from harness.clients.rtp.marks import Mark
from harness.clients.rtp.silence import calls_from_ops, noise_floor
from harness.clients.rtp.tone import tone_of_call
from harness.clock import WallOffset
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.history import Op
from tests.capture import Heard, gaps_of, packets, right_times_ns

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(60)]

HOST = "127.0.0.1"
NOWHERE = ("127.0.0.9", 9)
RUN = b"run-run-"
A, B = Leg(call="c1", side="caller"), Leg(call="c1", side="callee")
TOKEN_A, TOKEN_B = Token(run=RUN, role="A", n=1), Token(run=RUN, role="B", n=1)
MS = 1_000_000


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "history.d" / "media.jsonl"


@contextmanager
def tcpdump(path: Path) -> Iterator[None]:
    """Captures UDP on the loopback, each packet at once (a ring would keep the last); it must not have dropped any."""
    argv = ["tcpdump", "-i", "lo", "-n", "-U", "-s", "256", "-B", "8192", "--immediate-mode"]
    process = subprocess.Popen([*argv, "--time-stamp-precision=nano", "-w", str(path), "udp"], stderr=subprocess.PIPE)
    try:
        wait_for("tcpdump", lambda: path.exists() and path.stat().st_size >= 24, timeout_s=10)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert b"\n0 packets dropped by kernel" in said, said.decode()


async def two_way(engine: MediaEngine, a: Leg, b: Leg, *, mark_a: Mark, mark_b: Mark) -> tuple[int, int]:
    """A call with audio both ways; the ports of both ends."""
    at_a = await engine.open(a, local_ip=HOST, mark=mark_a)
    at_b = await engine.open(b, local_ip=HOST, mark=mark_b)
    assert at_a[1] % 2 == at_b[1] % 2 == 0
    engine.send(a, at_b)
    engine.send(b, at_a)
    await engine.heard(a, timeout_s=5)
    await engine.heard(b, timeout_s=5)
    return at_a[1], at_b[1]


def ops_of(out: Path, f: str) -> list[Op]:
    return [op for op in history.read(out) if op.f == f]


def test_every_packet_and_every_gap_is_that_of_the_capture(tmp_path: Path, out: Path) -> None:
    """Both directions are dark for a while in turn: the sender goes on into nowhere, as with a dead relay."""
    pcap = tmp_path / "lo.pcap"
    offset = WallOffset.measure()

    async def call() -> tuple[tuple[int, int], list[LegState]]:
        engine = await MediaEngine.start(out=out)
        try:
            ports = await two_way(engine, A, B, mark_a=TOKEN_A, mark_b=TOKEN_B)
            for leg, port, dark_s in ((A, ports[1], 0.1), (B, ports[0], 0.35), (A, ports[1], 0.5)):
                await asyncio.sleep(0.3)
                engine.send(leg, NOWHERE)
                await asyncio.sleep(dark_s)
                engine.send(leg, (HOST, port))
            await asyncio.sleep(0.3)
            engine.hold(A)
            engine.hold(B)
            await asyncio.sleep(0.05)
            return ports, [await engine.close(leg) for leg in (A, B)]
        finally:
            await engine.stop()

    with tcpdump(pcap):
        ports, states = asyncio.run(call())
    capture = list(packets(pcap))
    assert 400 < max(op.value["longest_ms"] for op in ops_of(out, "media_second")) < 900
    gaps: dict[str, list[Op]] = {"caller": [], "callee": []}
    for op in ops_of(out, "media_gap"):
        gaps[op.value["side"]].append(op)
    for leg, port, state, mark, dark in zip(
        ("caller", "callee"), ports, states, (TOKEN_B, TOKEN_A), ([0.35], [0.1, 0.5]), strict=True
    ):
        heard = Heard(ip=HOST, port=port, mark=mark.word())
        assert state.right == state.received == len(right_times_ns(capture, heard)), "no packet is missing"
        witnessed = gaps_of(capture, heard)
        assert len(gaps[leg]) == len(witnessed) == len(dark)
        for op, (from_ns, to_ns), dark_s in zip(gaps[leg], witnessed, dark, strict=True):
            assert op.value["from_ns"] == pytest.approx(from_ns - offset.offset_ns, abs=MS)
            assert op.value["to_ns"] == pytest.approx(to_ns - offset.offset_ns, abs=MS)
            assert op.value["gap_ms"] == pytest.approx((to_ns - from_ns) / MS, abs=1)
            assert op.value["gap_ms"] >= dark_s * 1000 - 25
            assert op.value["lost"] > 0
            assert not op.value["ssrc_changed"]
        assert (state.foreign, state.reordered, state.duplicates, state.ssrcs) == (0, 0, 0, 1)
        assert state.lost == sum(op.value["lost"] for op in gaps[leg])


def test_tones_are_heard_and_the_ops_tell_of_each_call(out: Path) -> None:
    """Two calls with tones; one is held, the other stays dark at the end. PCMA on one leg."""
    calls = [(Leg(call=f"c{n}", side="caller"), Leg(call=f"c{n}", side="callee")) for n in range(2)]

    async def talk() -> dict[Leg, LegState]:
        engine = await MediaEngine.start(out=out)
        try:
            for n, (a, b) in enumerate(calls):
                await two_way(engine, a, b, mark_a=tone_of_call(n), mark_b=tone_of_call(n).other)
            engine.hold(calls[0][0])
            engine.send(calls[1][0], NOWHERE, codec="PCMA")
            await asyncio.sleep(0.2)
            engine.resume(calls[0][0])
            await asyncio.sleep(1.0)
            return {leg: await engine.state(leg) for call in calls for leg in call}
        finally:
            await engine.stop()

    states = asyncio.run(talk())
    assert all(state.right == state.received > 0 for state in states.values())
    told = calls_from_ops(history.read(out))
    assert told[("c0", "caller")] == []
    assert [silence.held for silence in told[("c0", "callee")]] == [True]
    assert told[("c1", "caller")] == []
    assert [silence.to_ns for silence in told[("c1", "callee")]] == [None]
    seconds = ops_of(out, "media_second")
    assert set(seconds[0].value["legs"]) == {"c0/caller", "c0/callee", "c1/caller", "c1/callee"}
    floor = noise_floor(history.read(out), from_ns=0, to_ns=1 << 62)
    assert floor is None or floor.n > 0
    ends = ops_of(out, "media_leg")
    assert {(op.value["call"], op.value["side"]) for op in ends} == set(told)
    assert all(op.value["sent"] > 40 and op.value["unsent"] == 0 for op in ends if op.value["call"] == "c0")


def test_wrong_audio_is_not_right(out: Path) -> None:
    async def talk() -> tuple[LegState, LegState]:
        engine = await MediaEngine.start(out=out)
        try:
            at_a = await engine.open(A, local_ip=HOST, mark=TOKEN_A)
            at_b = await engine.open(B, local_ip=HOST, mark=Token(run=RUN, role="B", n=2))
            engine.send(A, at_b)
            engine.send(B, at_a)
            with pytest.raises(TimeoutError):
                await engine.heard(A, timeout_s=0.3)
            return await engine.close(A), await engine.close(B)
        finally:
            await engine.stop()

    for state in asyncio.run(talk()):
        assert state.right == 0
        assert state.foreign == state.received > 5
        assert state.first_ns is None
    assert {key: [s.to_ns for s in told] for key, told in calls_from_ops(history.read(out)).items()} == {
        ("c1", "caller"): [None],
        ("c1", "callee"): [None],
    }


def test_noise_at_its_ports_is_counted_and_harms_nothing(out: Path) -> None:
    chance = random.Random(11)

    async def talk() -> LegState:
        engine = await MediaEngine.start(out=out)
        try:
            ports = await two_way(engine, A, B, mark_a=TOKEN_A, mark_b=TOKEN_B)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
                for n in range(2000):
                    data = chance.randbytes(chance.choice([0, 1, 11, 12, 13, 40, 172, 1400]))
                    noise.sendto(b"\x80\x00" + data if n % 2 else data, (HOST, ports[0] + n % 4 // 3))
                    if n % 100 == 99:
                        await asyncio.sleep(0.005)
            right = (await engine.state(A)).right
            await engine.heard(A, frames=right + 5, timeout_s=5)
            return await engine.close(A)
        finally:
            await engine.stop()

    state = asyncio.run(talk())
    assert state.foreign > 300
    assert state.lost <= state.overflowed
    assert state.ssrcs <= 64


def test_an_engine_told_to_end_writes_what_it_knows_and_its_user_hears_of_it(out: Path) -> None:
    async def talk() -> str:
        engine = await MediaEngine.start(out=out)
        await two_way(engine, A, B, mark_a=TOKEN_A, mark_b=TOKEN_B)
        os.kill(engine.pid, signal.SIGTERM)
        with pytest.raises(InfrastructureError, match="is gone"):
            await engine.heard(A, frames=1_000_000, timeout_s=5)
        with pytest.raises(InfrastructureError, match="is gone"):
            await engine.state(A)
        failed = engine.failed
        await engine.stop()
        return failed or ""

    assert "is gone" in asyncio.run(talk())
    assert {op.value["side"] for op in ops_of(out, "media_leg")} == {"caller", "callee"}


def test_a_lost_controller_ends_the_engine_with_its_summaries(out: Path) -> None:
    async def talk() -> int:
        engine = await MediaEngine.start(out=out)
        await two_way(engine, A, B, mark_a=TOKEN_A, mark_b=TOKEN_B)
        engine._writer.transport.abort()
        return await asyncio.to_thread(engine._process.wait, 5)

    assert asyncio.run(talk()) == 0
    assert {op.value["side"] for op in ops_of(out, "media_leg")} == {"caller", "callee"}


def test_what_cannot_be_done_is_an_error_and_the_engine_goes_on(out: Path) -> None:
    async def talk() -> None:
        engine = await MediaEngine.start(out=out)
        try:
            with pytest.raises(ValueError, match="not open"):
                engine.send(A, NOWHERE)
            with pytest.raises(InfrastructureError, match="c1/caller"):
                await engine.state(A)
            with pytest.raises(InfrastructureError, match="open"):
                await engine.open(A, local_ip="192.0.2.1", mark=TOKEN_A)
            await engine.open(A, local_ip=HOST, mark=TOKEN_A)
            with pytest.raises(InfrastructureError, match="open already"):
                await engine.open(A, local_ip=HOST, mark=TOKEN_A)
            assert (await engine.close(A)).received == 0
        finally:
            await engine.stop()

    asyncio.run(talk())
