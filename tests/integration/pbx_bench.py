"""A bench for the PBX alone: two nodes and a client on one network, agents and profile on the nodes, no cluster.

The nodes share a folder of the host in place of the volume; the address of the PBX is a route on the client's side plus
a 1:1 translation on the node, as the region does it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.types import IPAMConfig, IPAMPool

from harness.cell.guest import agent_files, profile_files
from harness.cell.node import ContainerNode, File
from harness.cell.profile import load_profile
from harness.command import Completed, run, wait_for
from harness.images import wanted
from harness.topology import CELL_LABEL
from tests.integration import slots
from tests.integration.namespaces import socket_in
from tests.phones import Phone

TOPOLOGY = slots.own("pbxdev")
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

    def command(self, node: ContainerNode, name: str, *arguments: str, check: bool = True) -> Completed:
        """A command of the profile, run as it would be by hand."""
        return node.run([*_command(node, name), *arguments], timeout_s=10, check=check)

    def read(self, node: ContainerNode, kind: str) -> list[dict[str, Any]]:
        """What the profile's read command for this kind of data finds."""
        done = self.command(node, PROFILE.data.declared[kind].read)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start(self, node: ContainerNode) -> None:
        """Start the PBX there, and lead the address to it."""
        started = self.agent(node, "start", timeout_s=30)
        assert started.ok, started.stderr
        self.point_address_at(node)

    def crash(self, node: ContainerNode) -> None:
        run(["docker", "kill", node.container], timeout_s=20)

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


@contextmanager
def pbx_bench(tmp_path: Path) -> Iterator[Bench]:
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
            _prepared_node(container(f"{TOPOLOGY.cell}-{i}", i, cap_add=["NET_ADMIN", "SYS_ADMIN"], volumes=volume), i)
            for i in (1, 2)
        )
        bench = Bench(nodes=(nodes[0], nodes[1]), client=container(f"{TOPOLOGY.cell}-client", 9, cap_add=["NET_ADMIN"]))
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
