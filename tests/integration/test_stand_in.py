"""The stand-in PBX and its agent in containers: it serves, it is seen to hang or to be gone, it comes back elsewhere.

Two nodes and a client on one network. The nodes share a folder of the host in place of the volume; the address of the
PBX is a route on the client's side plus a 1:1 translation on the node, as the region does it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool

from harness.cell.guest import agent_files, profile_files
from harness.cell.node import ContainerNode, File
from harness.cell.profile import load_profile
from harness.command import Completed, run, wait_for
from harness.images import wanted
from harness.topology import CELL_LABEL, Topology
from tests.integration.namespaces import socket_in
from tests.phones import Phone

pytestmark = pytest.mark.integration

TOPOLOGY = Topology(cell="pbxdev", slot=3)
PROFILE = load_profile("stand-in")
PUBLIC = str(TOPOLOGY.elastic_range[1])
AGENT = "/usr/lib/ocf/resource.d/pbxha/pbx"
TRANSLATION = """
table ip elastic {{
  chain inward {{
    type filter hook prerouting priority -300;
    ip daddr {public} ip daddr set {private}
  }}
  chain outward {{
    type filter hook postrouting priority 300;
    ip daddr {client} ip saddr {private} ip saddr set {public}
  }}
}}
"""


@dataclass
class Bench:
    """Two nodes, a client, and what was made on the way."""

    nodes: tuple[ContainerNode, ContainerNode]
    client: Any
    phones: list[Phone] = field(default_factory=list)

    @property
    def client_pid(self) -> int:
        return int(self.client.attrs["State"]["Pid"])

    def agent(self, node: ContainerNode, action: str, *, timeout_s: int = 10) -> Completed:
        given = {
            "OCF_RESKEY_profile": "stand-in",
            "OCF_RESKEY_check_timeout": "2",
            "OCF_RESKEY_CRM_meta_timeout": str(timeout_s * 1000),
        }
        settings = [f"{key}={value}" for key, value in given.items()]
        return node.run(["env", *settings, AGENT, action], timeout_s=timeout_s, check=False)

    def hang_up(self) -> None:
        for phone in self.phones:
            phone.close()

    def point_address_at(self, node: ContainerNode) -> None:
        route = ["ip", "route", "replace", PUBLIC, "via", node.private_ip]
        run(["nsenter", "-t", str(self.client_pid), "-n", *route], timeout_s=5)

    def phone(self, extension: int) -> Phone:
        def make_socket() -> socket.socket:
            return socket_in(self.client_pid, bind=(str(TOPOLOGY.node_address(9)), 0))

        phone = Phone(
            str(extension),
            password=PROFILE.extensions.password,
            domain=PROFILE.sip.domain,
            pbx=(PUBLIC, PROFILE.sip.udp_port or 0),
            make_socket=make_socket,
        )
        self.phones.append(phone)
        return phone


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A prepared volume, nothing started; the address leads to the first node."""
    engine = docker.from_env()
    labels = {CELL_LABEL: TOPOLOGY.cell}
    with ExitStack() as undo:
        network: Any = engine.networks.create(
            TOPOLOGY.vpc_network,
            labels=labels,
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(TOPOLOGY.vpc_subnet))]),
            options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
        )
        undo.callback(network.remove)

        def container(name: str, index: int, **options: Any) -> Any:
            made: Any = engine.containers.create(
                wanted().node, name=name, hostname=name, labels=labels, tmpfs={"/run": "exec,mode=755"}, **options
            )
            undo.callback(made.remove, force=True)
            engine.api.connect_container_to_network(made.id, network.id, ipv4_address=str(TOPOLOGY.node_address(index)))
            engine.api.disconnect_container_from_network(made.id, "bridge")
            made.start()
            made.reload()
            return made

        volume = {str(tmp_path): {"bind": PROFILE.data_dir, "mode": "rw"}}
        nodes = tuple(
            _prepared_node(container(f"pbxdev-{i}", i, cap_add=["NET_ADMIN", "SYS_ADMIN"], volumes=volume), i)
            for i in (1, 2)
        )
        bench = Bench(nodes=(nodes[0], nodes[1]), client=container("pbxdev-client", 9, cap_add=["NET_ADMIN"]))
        undo.callback(bench.hang_up)
        tmp_path.chmod(0o755)
        nodes[0].run(_command(nodes[0], "init"), timeout_s=30)
        bench.point_address_at(nodes[0])
        yield bench


def _prepared_node(container: Any, index: int) -> ContainerNode:
    private = str(TOPOLOGY.node_address(index))
    node = ContainerNode(name=container.name, instance_id=f"i-{index}", private_ip=private, container=str(container.id))
    env = f"PBX_NODE={node.name}\nPBX_PRIVATE_IP={private}\nPBX_PUBLIC_IP={PUBLIC}\n"
    node.put(agent_files() | profile_files("stand-in", PROFILE.folder))
    node.put({"/etc/pbx-node/env": File(content=env.encode())})
    rules = TRANSLATION.format(public=PUBLIC, private=private, client=TOPOLOGY.node_address(9))
    node.run(["nft", "-f", "-"], timeout_s=5, stdin=rules)
    return node


def _command(node: ContainerNode, name: str) -> list[str]:
    return PROFILE.command(name, node=node.name, private_ip=node.private_ip, public_ip=PUBLIC)


def heard_both_ways(*calls: Any, packets: int = 10, timeout_s: float = 5) -> None:
    """Wait until every one of these ends has got `packets` more."""
    before = [call.media.received for call in calls]
    wait_for(
        "audio in both directions",
        lambda: all(call.media.received >= b + packets for call, b in zip(calls, before, strict=True)),
        timeout_s=timeout_s,
        every_s=0.01,
        last_seen=lambda: ", ".join(f"{call.media.received - b}" for call, b in zip(calls, before, strict=True)),
    )


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


CALL_RECORDS = "SELECT callid, caller, callee, duration >= 0 FROM acc_cdrs"


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
    for name in ("kamailio", "postgres", "rtpengine", "redis-server"):
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
