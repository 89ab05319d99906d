"""Real clients against one stand-in PBX: Chromium with JsSIP and baresip call phones of ours, SIPp loads it.

Without the client image (`python -m harness.images --client`) there is nothing to test here.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from harness.clients.programs import unmet
from harness.clients.rtp.silence import Silence, calls_from_ops
from harness.clock import now_ns
from harness.command import wait_for
from harness.history import Op, read
from harness.region import background
from harness.topology import CELL_LABEL
from tests.integration.pbx_bench import PROFILE, PUBLIC, TOPOLOGY, pbx_bench
from tests.integration.pbx_bench import Bench as PbxBench

WHY = unmet()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(120),
    pytest.mark.skipif(WHY is not None, reason=str(WHY)),
]

PROGRAMS = {f"{TOPOLOGY.cell}-{name}" for name in ("browser", "softphone", "load-caller", "load-callee")}
DOMAIN = PROFILE.sip.domain
BLACKOUT_S = 0.8
SLACK_NS = 60_000_000
"""Two frames and what a busy host delays a third."""

BLOCK = """table ip blackout {{
  chain out {{ type filter hook postrouting priority 400; ip daddr {0} ip protocol udp drop; }}
}}"""
"""At the PBX's node, behind its translation of addresses: a packet socket sees what the client's own filter drops."""


@dataclass
class Client:
    """A measuring process, and what it has written so far."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def ops(self, f: str) -> list[Op]:
        return [op for op in read(self.out) if op.f == f] if self.out.exists() else []

    def events(self, side: str) -> dict[str, Op]:
        """The latest of each event of a side."""
        return {op.value["event"]: op for op in self.ops("call_event") if op.value["side"] == side}

    def silences(self) -> dict[tuple[str, str], list[Silence]]:
        """Of both ends: the phone's is told in a file of its own."""
        return calls_from_ops([*read(self.out), *read(self._media)])

    def media(self, f: str) -> list[Op]:
        """What the phone's audio engine has told."""
        return [op for op in read(self._media) if op.f == f]

    @property
    def _media(self) -> Path:
        return self.out.with_name(f"{self.out.stem}_media.jsonl")

    def wait(self, what: str, seen: Callable[[], object], timeout_s: float = 20) -> None:
        def look() -> object:
            assert self.process.poll() is None, self.log.read_text()
            return seen()

        wait_for(what, look, timeout_s=timeout_s, every_s=0.05)

    def stop(self, timeout_s: float = 40) -> None:
        self.process.terminate()
        assert self.process.wait(timeout_s) == 0, self.log.read_text()


@dataclass
class Bench:
    """The PBX's first node serves; measuring processes are started in the client machine's network namespace."""

    pbx: PbxBench
    folder: Path
    clients: list[Client] = field(default_factory=list)

    def start(self, module: str, name: str, *arguments: str) -> Client:
        out, log = self.folder / f"{name}.jsonl", self.folder / f"{name}.log"
        environment = background.environment(TOPOLOGY.cell) | {"PBX_CHAOS_SIP_PASSWORD": PROFILE.extensions.password}
        argv = ["nsenter", "-t", str(self.pbx.client_pid), "-n", sys.executable, "-m", f"harness.clients.{module}"]
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*argv, "--domain", DOMAIN, *arguments, "--out", str(out)], stderr=said, env=environment
            )
        self.clients.append(Client(process=process, out=out, log=log))
        return self.clients[-1]

    def blackout(self, hold_s: float) -> tuple[tuple[int, int], tuple[int, int]]:
        """No UDP from the PBX reaches the client machine for a while; between which times it began, and ended."""
        began_ns = self._nft(BLOCK.format(TOPOLOGY.node_address(9)))
        time.sleep(hold_s)
        return began_ns, self._nft("delete table ip blackout")

    def kill(self) -> None:
        for client in self.clients:
            client.process.kill()
            client.process.wait()

    def _nft(self, rules: str) -> tuple[int, int]:
        before_ns = now_ns()
        self.pbx.nodes[0].run(["nft", "-f", "-"], timeout_s=5, stdin=rules)
        return before_ns, now_ns()


@pytest.fixture(scope="module")
def pbx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PbxBench]:
    """A PBX that serves at its public address."""
    with pbx_bench(tmp_path_factory.mktemp("volume")) as bench:
        bench.start(bench.nodes[0])
        yield bench


@pytest.fixture
def bench(pbx: PbxBench, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(pbx=pbx, folder=tmp_path)
    try:
        yield bench
    finally:
        bench.kill()
        for left in docker.from_env().containers.list(all=True, filters={"label": f"{CELL_LABEL}={TOPOLOGY.cell}"}):
            if left.name.rpartition("-")[0] in PROGRAMS:
                left.remove(force=True)


@pytest.mark.parametrize(
    ("module", "first", "port", "more"),
    [
        ("browser", 2000, PROFILE.sip.wss_port, ()),
        ("softphone", 2010, PROFILE.sip.tls_port, ()),
        ("softphone", 2020, PROFILE.sip.tcp_port, ("--transport", "tcp")),
    ],
)
def test_a_real_client_and_a_phone_hear_each_other_and_a_silence_in_between(
    bench: Bench, module: str, first: int, port: int, more: tuple[str, ...]
) -> None:
    client = bench.start(module, module, "--to", f"{PUBLIC}:{port}", "--first", str(first), *more)
    name = "webrtc" if module == "browser" else "desktop"
    client.wait("audio both ways", lambda: len(client.ops(f"calls_{name}")) >= 3)
    assert [op.type for op in client.ops("call")] == ["invoke", "ok"]
    assert client.ops(f"calls_{name}")[-1].type == "ok"
    began_ns, ended_ns = bench.blackout(BLACKOUT_S)
    client.wait("the silences of both ends", lambda: client.ops("media_gap") and client.media("media_gap"))
    client.stop()
    for side in ("caller", "callee"):
        silence = longest(client.silences()[f"{name}-0", side])
        assert silence.to_ns is not None
        assert began_ns[0] - SLACK_NS <= silence.from_ns <= began_ns[1] + SLACK_NS
        assert ended_ns[0] - SLACK_NS <= silence.to_ns <= ended_ns[1] + SLACK_NS
    caller, callee = client.events("caller"), client.events("callee")
    unaided_ns = client.ops("unaided")[0].time_ns
    assert caller["reinvite_sent"].value["code"] == callee["reinvite_sent"].value["code"] == 200
    assert caller["bye_sent"].value["code"] == 200
    assert min(caller["reinvite_sent"].time_ns, callee["reinvite_sent"].time_ns) > unaided_ns
    assert {"reinvite_received"} <= caller.keys()
    assert {"reinvite_received", "bye_received"} <= callee.keys()
    assert not caller.keys() & {"new_connection_sent", "new_call_helped", "complaint"}
    (leg,) = client.ops("media_leg")
    assert leg.value["foreign"] == 0
    assert leg.value["sent"] > 0
    if module == "browser":
        assert (leg.value["resolution_ms"], leg.value["dtls"]) == (1, "connected")


def test_load_is_placed_at_its_rate_and_told_once_a_second(bench: Bench) -> None:
    load = bench.start(
        "load", "load", "--to", f"{PUBLIC}:{PROFILE.sip.udp_port}", "--callers", "1100-1109", "--callee", "1150",
        "--rate-cps", "5", "--hold-s", "1", "--audio",
    )  # fmt: skip
    load.wait("ended calls", lambda: any(op.value.get("ok_total", 0) >= 5 for op in load.ops("load")))
    load.stop()
    last = load.ops("load")[-1].value
    assert last["failed_total"] == 0
    assert last["created"] >= 10
    assert last["target_cps"] == 5


def longest(silences: list[Silence]) -> Silence:
    return max(silences, key=lambda silence: (silence.to_ns or now_ns()) - silence.from_ns)
