"""The stand-in PBX and its agent in containers: it serves, it is seen to hang or be gone, it comes back elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cell.node import ContainerNode
from harness.command import run, wait_for
from tests.integration.pbx_bench import PROFILE, PUBLIC, Bench, heard_both_ways, pbx_bench

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A prepared volume, nothing started; the address leads to the first node."""
    with pbx_bench(tmp_path) as bench:
        yield bench


def test_calls_and_registrations_go_on_at_the_next_node(bench: Bench) -> None:
    first, second = bench.nodes
    assert bench.agent(first, "monitor").code == 7
    assert bench.agent(first, "start", timeout_s=30).ok
    caller, callee = bench.phone(1000), bench.phone(1001)
    for phone in (caller, callee):
        registered = phone.register()
        assert registered is not None and registered.code == 200
    answered, call = caller.call("1001")
    assert answered is not None and call is not None, answered
    accepted = callee.calls[call.call_id]
    heard_both_ways(call, accepted)
    assert {host for host, _ in call.media.sources | accepted.media.sources} == {PUBLIC}

    run(["docker", "kill", first.container], timeout_s=20)
    started = bench.agent(second, "start", timeout_s=30)
    assert started.ok, started.stderr
    bench.point_address_at(second)
    heard_both_ways(call, accepted)

    answered, another = caller.call("1001")
    assert answered is not None and another is not None, answered
    heard_both_ways(another, callee.calls[another.call_id])
    for established in (call, another):
        ended = caller.hang_up(established)
        assert ended is not None and ended.code == 200
        assert callee.calls[established.call_id].ended
    records = second.run(["psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", CALL_RECORDS, "pbx"], timeout_s=5)
    assert sorted(records.stdout.split()) == sorted(
        f"{established.call_id}|1000|1001|t" for established in (call, another)
    )


CALL_RECORDS = "SELECT call_id, caller, callee, ended >= began FROM call_record"


def test_a_planned_move_keeps_calls_too(bench: Bench) -> None:
    first, second = bench.nodes
    assert bench.agent(first, "start", timeout_s=30).ok
    caller, callee = bench.phone(1000), bench.phone(1001)
    caller.register()
    callee.register()
    _, call = caller.call("1001")
    assert call is not None
    heard_both_ways(call, callee.calls[call.call_id])
    assert bench.agent(first, "stop").ok
    assert bench.agent(second, "start", timeout_s=30).ok
    bench.point_address_at(second)
    heard_both_ways(call, callee.calls[call.call_id])


def test_what_hangs_or_is_gone_is_seen_and_stopped(bench: Bench) -> None:
    node = bench.nodes[0]
    assert bench.agent(node, "start", timeout_s=30).ok
    assert bench.agent(node, "start").ok, "a second start changes nothing"
    phone = bench.phone(1000)
    for name in ("kamailio", "postgres", "rtpengine", "redis-server", "pbx-prompts"):
        node.run(["pkill", "-STOP", "-x", name], timeout_s=5)
        monitored = bench.agent(node, "monitor", timeout_s=5)
        assert (name, monitored.code) == (name, 1)
        assert monitored.took_s < 5
        assert "ocf-exit-reason:" in monitored.stderr
        if name in ("postgres", "rtpengine"):
            answered = phone.options(timeout_s=0.4)
            assert answered is None or answered.code == 503, "OPTIONS must not be answered by a proxy alone"
        node.run(["pkill", "-CONT", "-x", name], timeout_s=5)
        wait_for("the PBX to serve again", lambda: bench.agent(node, "monitor").ok, timeout_s=10)
    answered = phone.options()
    assert answered is not None and answered.code == 200
    _stops_whatever_state_it_is_in(bench, node)


def _stops_whatever_state_it_is_in(bench: Bench, node: ContainerNode) -> None:
    node.run(["pkill", "-STOP", "-x", "kamailio"], timeout_s=5)
    node.run(["pkill", "-STOP", "-x", "postgres"], timeout_s=5)
    stopped = bench.agent(node, "stop", timeout_s=10)
    assert stopped.ok and stopped.took_s < 9
    assert bench.agent(node, "monitor").code == 7
    assert bench.agent(node, "stop").ok, "a second stop changes nothing"
    users = node.run(["fuser", "-s", "-m", PROFILE.data_dir], timeout_s=5, check=False)
    assert not users.ok or _only_the_host_uses(node), "the volume can be unmounted"
    assert bench.agent(node, "start", timeout_s=30).ok
    node.run(["pkill", "-KILL", "-x", "rtpengine"], timeout_s=5)
    assert bench.agent(node, "monitor").code == 1
    node.run(["pkill", "-KILL", "-x", "kamailio|redis-server|postgres"], timeout_s=5)
    wait_for("nothing of the PBX to run", lambda: bench.agent(node, "monitor").code == 7, timeout_s=5)


def _only_the_host_uses(node: ContainerNode) -> bool:
    """The folder is not a file system of its own here: look for open files below it instead."""
    script = f"ls -l /proc/[0-9]*/fd /proc/[0-9]*/cwd 2>/dev/null | grep -c '{PROFILE.data_dir}/'"
    return node.run(["sh", "-c", script], timeout_s=5, check=False).stdout.strip() == "0"


def _damage_redis(node: ContainerNode) -> None:
    folder = f"{PROFILE.data_dir}/redis/appendonlydir"
    script = f"head -c 700 /dev/urandom >> $(ls {folder}/*.incr.aof | tail -n 1)"
    node.run(["sh", "-c", script], timeout_s=5)


def _stale_pid_file(node: ContainerNode) -> None:
    """A crash of the other node left its pid file, and here that number belongs to somebody who lives."""
    script = f"echo 1 > {PROFILE.data_dir}/postgres/postmaster.pid"
    node.run(["sh", "-c", script], timeout_s=5)


@pytest.mark.parametrize("damage", [_damage_redis, _stale_pid_file])
def test_what_a_crash_leaves_behind_does_not_keep_it_from_starting(
    bench: Bench, damage: Callable[[ContainerNode], None]
) -> None:
    node = bench.nodes[0]
    assert bench.agent(node, "start", timeout_s=30).ok
    phone = bench.phone(1000)
    registered = phone.register()
    assert registered is not None and registered.code == 200
    node.run(["pkill", "-KILL", "-x", "kamailio|rtpengine|redis-server|postgres"], timeout_s=5)
    wait_for("nothing of the PBX to run", lambda: bench.agent(node, "monitor").code == 7, timeout_s=5)
    damage(node)
    started = bench.agent(node, "start", timeout_s=30)
    assert started.ok, started.stderr


def test_without_its_data_it_does_not_start(bench: Bench) -> None:
    node = bench.nodes[0]
    node.run(["rm", f"{PROFILE.data_dir}/.stand-in"], timeout_s=5)
    started = bench.agent(node, "start")
    assert started.code == 1
    assert "not mounted, or `init` was never run" in started.stderr
