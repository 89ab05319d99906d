"""The OPTIONS clock against a peer that does one thing each time, over real sockets on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import history
from harness.clients import open_loop
from harness.clients.open_loop import Turn
from harness.clients.options import Options
from harness.clients.recorder import Recorder
from harness.clients.road import UdpRoad
from harness.clients.shooting import address
from harness.clients.single_shot import SingleShot
from harness.clients.sip.message import parse, response
from harness.clients.sip.transport import Address, UdpSocket
from harness.history import Op, Pair

DEADLINE_S = 0.04

Behaviour = Callable[[bytes, Address], list[bytes]]


def answering(code: int, reason: str = "Whatever") -> Behaviour:
    return lambda data, _: [response(parse(data), code, reason, to_tag="t")]


def options_probe(recorder: Recorder, udp: UdpSocket, to: Address) -> SingleShot:
    return SingleShot(
        road=lambda shots: UdpRoad(shots, udp=udp, to=to),
        exchange=lambda: Options(domain="pbx.test"),
        deadline_s=DEADLINE_S,
        recorder=recorder,
    )


def observe(tmp_path: Path, behaviour: Behaviour | None, *, sends: int = 1, delay_s: float = 0.0) -> list[Op]:
    """`sends` probes, 5 ms apart, to a peer that answers like this after a delay; None: to a closed port."""
    out = tmp_path / "options.jsonl"

    async def go() -> None:
        loop = asyncio.get_running_loop()
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        target = peer.getsockname()

        def serve() -> None:
            data, source = peer.recvfrom(65535)
            for reply in behaviour(data, source) if behaviour else []:
                loop.call_later(delay_s, peer.sendto, reply, source)

        if behaviour is None:
            peer.close()
        else:
            loop.add_reader(peer.fileno(), serve)
        recorder = Recorder(out, process="options", f="options")
        udp = UdpSocket(("127.0.0.1", 0))
        probe = options_probe(recorder, udp, target)
        for n in range(sends):
            probe.send(Turn(n=n, slip_ms=0.0, skipped=0, slipped=False))
            await asyncio.sleep(0.005)
        while not probe.idle:
            await asyncio.sleep(0.005)
        await asyncio.sleep(max(0.0, delay_s - DEADLINE_S + 0.02) if delay_s else 0)
        probe.close()
        recorder.close()
        if behaviour is not None:
            loop.remove_reader(peer.fileno())
            peer.close()

    asyncio.run(go())
    return list(history.read(out))


def pairs(ops: list[Op]) -> list[Pair]:
    return history.pairs(ops, "options")


def test_a_2xx_in_time_is_ok_and_has_the_kernels_time(tmp_path: Path) -> None:
    found = pairs(observe(tmp_path, answering(200), sends=3))
    assert [p.end.type for p in found if p.end] == ["ok"] * 3
    assert all(0 < (p.latency_ns or 0) < DEADLINE_S * 1e9 for p in found)
    assert all(p.end and p.end.value["seen_lag_ms"] >= 0 for p in found)


@pytest.mark.parametrize("code", [302, 404, 503, 603])
def test_any_other_final_answer_is_a_failure(tmp_path: Path, code: int) -> None:
    end = pairs(observe(tmp_path, answering(code, "No")))[0].end
    assert end
    assert (end.type, end.error) == ("fail", f"{code} No")


def test_a_provisional_answer_is_no_answer(tmp_path: Path) -> None:
    end = pairs(observe(tmp_path, answering(100)))[0].end
    assert end
    assert (end.type, end.error) == ("info", f"no answer within {DEADLINE_S:g} s")


def test_a_closed_port_is_a_failure_of_the_very_probe(tmp_path: Path) -> None:
    found = pairs(observe(tmp_path, None, sends=4))
    assert [p.end.error for p in found if p.end] == ["ICMP: ECONNREFUSED"] * 4


def test_an_answer_after_the_deadline_is_told_as_late_and_ends_nothing(tmp_path: Path) -> None:
    ops = observe(tmp_path, answering(200), delay_s=DEADLINE_S * 1.5)
    assert [p.end.type for p in pairs(ops) if p.end] == ["info"]
    late = [op for op in ops if op.f == "options_late"]
    assert [op.value["n"] for op in late] == [0]
    assert late[0].value["latency_ms"] > DEADLINE_S * 1000


def test_repeated_wrong_and_broken_answers_change_nothing(tmp_path: Path) -> None:
    def noisy(data: bytes, _: Address) -> list[bytes]:
        good = response(parse(data), 200, "OK", to_tag="t")
        return [b"\x00junk", b"SIP/2.0 200 OK\r\n\r\n", good.replace(b"z9hG4bK", b"z9hG4bX"), good, good]

    ops = observe(tmp_path, noisy, sends=2)
    assert [op.type for op in ops].count("ok") == 2
    assert len(ops) == 4


def test_a_send_that_never_left_is_a_failure(tmp_path: Path) -> None:
    async def go() -> None:
        recorder = Recorder(tmp_path / "o.jsonl", process="options", f="options")
        udp = UdpSocket(("127.0.0.1", 0))
        unreachable = ("192.0.2.1", 5060)  # from a loopback address there is no way out
        probe = options_probe(recorder, udp, unreachable)
        probe.send(Turn(n=0, slip_ms=0.0, skipped=0, slipped=False))
        assert probe.idle
        probe.close()
        recorder.close()

    asyncio.run(go())
    end = pairs(list(history.read(tmp_path / "o.jsonl")))[0].end
    assert end
    assert (end.type, (end.error or "").startswith("not sent: ")) == ("fail", True)


def test_the_loop_sends_on_its_grid_and_ends_with_every_probe_ended(tmp_path: Path) -> None:
    class Counting:
        idle = True

        def __init__(self) -> None:
            self.turns: list[int] = []

        def send(self, turn: Turn) -> None:
            self.turns.append(turn.n)
            if len(self.turns) == 3:
                stop.set()

    async def go() -> None:
        nonlocal stop
        stop = asyncio.Event()
        await open_loop.run(probe, period_s=0.005, stop=stop)

    stop: asyncio.Event
    probe = Counting()
    asyncio.run(go())
    assert len(probe.turns) == 3
    assert probe.turns == sorted(set(probe.turns))


def test_a_probe_that_breaks_ends_the_loop_with_its_error() -> None:
    class Broken:
        idle = True

        def send(self, turn: Turn) -> None:
            raise OSError("no disk")

    async def go() -> None:
        await open_loop.run(Broken(), period_s=0.01, stop=asyncio.Event())

    with pytest.raises(OSError, match="no disk"):
        asyncio.run(go())


@pytest.mark.parametrize(("text", "parsed"), [("1.2.3.4:5070", ("1.2.3.4", 5070)), ("1.2.3.4", ("1.2.3.4", 5060))])
def test_an_address(text: str, parsed: Address) -> None:
    assert address(text) == parsed
