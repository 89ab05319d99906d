"""The floor: how fast bare corosync and Pacemaker form, and move dummy resources off a dead node, on this host.

Three containers, the timers of a policy, a group of `ocf:heartbeat:Dummy` instead of volume, file system, PBX and
address, and a fence agent that asks this process to cut the power. No AWS, no disk, no PBX: whatever our cell needs
beyond these figures is not the cluster software's. Printed beside the cell's own figures.

`python -m benchmarks.floor [--policy tuned] [--slot 14] [--repeat 3]`
"""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import docker
import docker.errors
from docker.types import IPAMConfig, IPAMPool

from harness.cell.cib import cib_xml
from harness.cell.cluster import CRM_MON, ClusterState, parse_cluster
from harness.cell.corosync import corosync_conf
from harness.cell.facts import CellFacts, NodeFacts
from harness.cell.guest import BOOT, FENCE_AGENTS_DIR, cluster_files, system_files
from harness.cell.node import ContainerNode, File
from harness.cell.policy import Policy, load_policy
from harness.command import run, wait_for
from harness.errors import HarnessError
from harness.images import wanted
from harness.topology import CELL_LABEL, REGION_NAME, ROLE_LABEL, ZONE, Topology

NODES = ("pbx-1", "pbx-2", "pbx-3")


@dataclass(kw_only=True)
class DummyCluster:
    """Three bare nodes. `start` forms the cluster, `power_off` cuts links and kills, `remove` leaves nothing behind."""

    topology: Topology
    policy: Policy
    image: str = field(default_factory=lambda: wanted().node)
    nodes: dict[str, ContainerNode] = field(default_factory=dict)
    formed_s: float = 0.0
    _server: ThreadingHTTPServer | None = None

    def start(self) -> float:
        """Create and start everything; seconds from the start of corosync to 3 online and all dummies started."""
        self._network()
        url = self._power_switch()
        names_and_pids = {name: self._container(index, name) for index, name in enumerate(NODES, start=1)}
        facts = self._facts()
        policy = with_dummies(self.policy, url)
        files = cluster_files(
            corosync_conf=corosync_conf(policy.corosync, facts),
            cib=cib_xml(policy, facts, pbx_agent="ocf:heartbeat:Dummy", pbx_params={}),
        )
        for node in facts.nodes:
            container = ContainerNode(
                name=node.name, instance_id="", private_ip=node.addresses[0], container=names_and_pids[node.name]
            )
            container.put(files | system_files(facts, node, endpoint_url=None) | _AGENT)
            self.nodes[node.name] = container
        return self.boot(policy)

    def boot(self, policy: Policy) -> float:
        began = time.monotonic()
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(start_boot, self.nodes.values()))
        wait_for("all nodes online with a DC", self._formed, timeout_s=90, every_s=0.02)
        self.formed_s = time.monotonic() - began
        self.wait_running(policy, online=len(self.nodes))
        return time.monotonic() - began

    def _formed(self) -> bool:
        state = self.state()
        return state is not None and len(state.online) == len(self.nodes) and state.dc is not None and state.quorum

    def state(self, *, but: str | None = None) -> ClusterState | None:
        for name, node in self.nodes.items():
            if name != but:
                done = node.run(CRM_MON, timeout_s=5, check=False)
                if done.ok:
                    return parse_cluster(done.stdout, owned=self._owned)
        return None

    def wait_running(self, policy: Policy, *, online: int, but: str | None = None, timeout_s: float = 90) -> str:
        """Wait until `online` nodes are there and all dummies run on one; that node's name."""
        seen: list[ClusterState | None] = [None]

        def running() -> str | None:
            state = seen[0] = self.state(but=but)
            if state is None or len(state.online) != online or state.active == but:
                return None
            return state.active

        return wait_for(
            f"{online} nodes online and all dummies started", running, timeout_s=timeout_s, last_seen=lambda: str(seen)
        )

    def power_off(self, name: str) -> float:
        """Links down on the host's side, then killed; the moment of the cut (CLOCK_MONOTONIC, s)."""
        container = self.nodes[name].container
        pid = run(["docker", "inspect", "-f", "{{.State.Pid}}", container], timeout_s=10).stdout.strip()
        cut = time.monotonic()
        if pid != "0":
            link = run(["nsenter", "-t", pid, "-n", "ip", "-o", "link", "show", "eth0"], timeout_s=5).stdout
            index = link.split("@if", 1)[1].split(":", 1)[0]
            for line in run(["ip", "-o", "link"], timeout_s=5).stdout.splitlines():
                number, peer, *_ = line.split(": ")
                if number == index:
                    cut = time.monotonic()
                    run(["ip", "link", "set", peer.split("@")[0], "down"], timeout_s=5)
            run(["docker", "kill", container], timeout_s=20, check=False)
        return cut

    def remove(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        client = docker.from_env()
        for container in client.containers.list(all=True, filters={"label": f"{CELL_LABEL}={self.topology.cell}"}):
            container.remove(force=True)
        for network in client.networks.list(filters={"label": f"{CELL_LABEL}={self.topology.cell}"}):
            network.remove()

    @property
    def _owned(self) -> tuple[str, ...]:
        return tuple(resource.id for resource in self.policy.resource if resource.role != "other")

    def _facts(self) -> CellFacts:
        return CellFacts(
            cluster_name=self.topology.cell,
            nodes=tuple(
                NodeFacts(
                    node_id=index, name=name, instance_id=name, addresses=(str(self.topology.node_address(index)),)
                )
                for index, name in enumerate(NODES, start=1)
            ),
            volume_id="vol-0",
            allocation_id="eipalloc-0",
            public_ip=str(self.topology.elastic_range[1]),
            region=REGION_NAME,
            zone=ZONE,
        )

    def _network(self) -> None:
        pool = IPAMPool(subnet=str(self.topology.vpc_subnet), gateway=str(self.topology.endpoint_address))
        docker.from_env().networks.create(
            self.topology.vpc_network,
            ipam=IPAMConfig(pool_configs=[pool]),
            labels={CELL_LABEL: self.topology.cell},
            options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
        )

    def _container(self, index: int, name: str) -> str:
        argv = ["docker", "run", "--detach", "--hostname", name, "--name", f"{self.topology.cell}-{name}"]
        argv += ["--label", f"{CELL_LABEL}={self.topology.cell}", "--label", f"{ROLE_LABEL}=instance"]
        argv += ["--cap-add", "NET_ADMIN", "--tmpfs", "/run:exec,mode=755", "--shm-size", "128m"]
        argv += ["--network", self.topology.vpc_network, "--ip", str(self.topology.node_address(index)), self.image]
        return run(argv, timeout_s=30).stdout.strip()

    def _power_switch(self) -> str:
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlparse(self.path)
                name = parse_qs(asked.query).get("node", [""])[0]
                body = "\n".join(f"{node},{node}" for node in NODES) + "\n"
                if asked.path == "/off":
                    cluster.power_off(name)
                    body = "off\n"
                elif asked.path == "/status":
                    body = "on\n"
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((str(self.topology.endpoint_address), 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://{self.topology.endpoint_address}:{self._server.server_port}"


_SWITCH = (Path(__file__).parent / "fence_floor").read_bytes()
_AGENT = {f"{FENCE_AGENTS_DIR}/fence_floor": File(content=_SWITCH, mode=0o755)}


def start_boot(node: ContainerNode) -> None:
    """Run the boot script of a node that has just got it, detached, as its init does at later starts."""
    node.run(["sh", "-c", f"setsid {BOOT} >>/var/log/pbx-node/boot.log 2>&1 </dev/null &"], timeout_s=10)


def with_dummies(policy: Policy, url: str) -> Policy:
    """The policy with every agent replaced by a dummy: its timers, order and constraints stay."""
    dummies = tuple(
        replace(resource, agent="ocf:heartbeat:Dummy", params={}, check_level=None) for resource in policy.resource
    )
    return replace(policy, resource=dummies, fencing=replace(policy.fencing, agent="fence_floor", params={"url": url}))


def measure(*, policy: str, slot: int, repeat: int) -> list[dict[str, Any]]:
    """Times in seconds, each of a cluster of its own: all nodes online and a DC; dummies started; failover."""
    form: list[float] = []
    ready: list[float] = []
    move: list[float] = []
    for _ in range(repeat):
        cluster = DummyCluster(topology=Topology(cell="floor", slot=slot), policy=load_policy(policy))
        try:
            ready.append(cluster.start())
            form.append(cluster.formed_s)
            active = cluster.wait_running(cluster.policy, online=3)
            cut = cluster.power_off(active)
            cluster.wait_running(cluster.policy, online=2, but=active)
            move.append(time.monotonic() - cut)
        finally:
            cluster.remove()
    name = f"floor_{policy.replace('-', '_')}"
    return [
        {"name": f"{name}_form_s", "unit": "s", "n": len(form), "value": _middle(form), "samples": _rounded(form)},
        {"name": f"{name}_ready_s", "unit": "s", "n": len(ready), "value": _middle(ready), "samples": _rounded(ready)},
        {"name": f"{name}_failover_s", "unit": "s", "n": len(move), "value": _middle(move), "samples": _rounded(move)},
    ]


def _middle(values: list[float]) -> float:
    return round(sorted(values)[len(values) // 2], 3)


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 3) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="tuned")
    parser.add_argument("--slot", type=int, default=14)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with suppress(BrokenPipeError):
        print(json.dumps(measure(policy=args.policy, slot=args.slot, repeat=args.repeat), indent=1))


if __name__ == "__main__":
    try:
        main()
    except (HarnessError, docker.errors.DockerException, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from error
