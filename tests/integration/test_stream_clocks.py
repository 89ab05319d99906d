"""The clocks on TCP, TLS and WSS against the stand-in PBX: ok while it serves, not ok while it is gone, ok again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import history
from harness.clients.probes import ProbeSpec, new_calls, registrations, sip_options
from harness.clients.processes import ProbeProcess, start
from harness.command import wait_for
from harness.history import Pair
from tests.integration.pbx_bench import PROFILE, PUBLIC, TOPOLOGY, Bench, pbx_bench
from tests.integration.places import Place
from tests.integration.test_pbx_variants import DAEMONS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CLOCKS = (
    sip_options(transport="tcp"),
    sip_options(transport="tls"),
    sip_options(transport="wss"),
    registrations(transport="wss"),
    new_calls(transport="tls"),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pbx_bench(tmp_path_factory.mktemp("volume")) as bench:
        bench.start(bench.nodes[0])
        yield bench


def pairs(out: Path, spec: ProbeSpec) -> list[Pair]:
    path = out / f"{spec.name}.jsonl"
    return [pair for pair in history.pairs(list(history.read(path)), spec.name) if pair.end] if path.exists() else []


def last(out: Path, spec: ProbeSpec, count: int) -> set[str]:
    """How the last attempts of a clock ended."""
    return {pair.end.type for pair in pairs(out, spec)[-count:] if pair.end}


def sockets(probe: ProbeProcess) -> int:
    fds = Path(f"/proc/{probe._process.pid}/fd")
    return sum(fd.readlink().name.startswith("socket:") for fd in fds.iterdir())


def test_each_clock_is_ok_while_the_pbx_serves_and_only_then(bench: Bench, tmp_path: Path) -> None:
    node = bench.nodes[0]
    place = Place(public_ip=PUBLIC, client_pid=bench.client_pid, router_pid=0, topology=TOPOLOGY, profile=PROFILE)
    probes = {spec: start(spec, cell=place, netns_pid=bench.client_pid, out_dir=tmp_path) for spec in CLOCKS}

    def all_are(wanted: set[str], count: int = 3) -> None:
        def reached() -> bool:
            for probe in probes.values():
                probe.check_alive()
            return all(len(pairs(tmp_path, s)) >= count and last(tmp_path, s, count) <= wanted for s in CLOCKS)

        wait_for(
            f"every clock {' or '.join(sorted(wanted))}", reached, timeout_s=20,
            last_seen=lambda: str({s.name: [p.end.error for p in pairs(tmp_path, s)[-2:] if p.end] for s in CLOCKS}),
        )  # fmt: skip

    try:
        all_are({"ok"}, 5)
        node.run(["pkill", "-KILL", "-x", DAEMONS], timeout_s=5)
        all_are({"fail", "info"})
        bench.start(node)
        all_are({"ok"}, 5)
        held = {spec.name: sockets(probe) for spec, probe in probes.items() if spec.clock != "new_call"}
        assert max(held.values()) <= 6, f"an attempt that is decided gives its connection back: {held}"
    finally:
        for probe in probes.values():
            probe.stop(timeout_s=10)
    refused = {pair.end.error for pair in pairs(tmp_path, CLOCKS[1]) if pair.end and pair.end.type == "fail"}
    assert "ECONNREFUSED" in refused, refused
    for spec in CLOCKS:
        slipped = sum(bool(pair.invoke.value.get("slipped")) for pair in pairs(tmp_path, spec))
        took = sorted(
            p.latency_ns / 1e6 for p in pairs(tmp_path, spec) if p.end and p.end.type == "ok" and p.latency_ns
        )
        print(f"{spec.name}: {len(took)} ok, median {took[len(took) // 2]:.1f} ms, {slipped} sends slipped")
