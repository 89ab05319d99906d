"""The cell: three nodes with one volume and one address, a cluster on them, and what the harness may ask them.

`up` brings one up from nothing, `load` finds one that is up from any process, `down` leaves nothing of it. What is
known about a cell is in state_dir/cell.json, so that nothing depends on the process that brought it up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from harness import topology as topologies
from harness.cell import boot
from harness.cell.cluster import ClusterState
from harness.cell.facts import CellFacts, NodeFacts
from harness.cell.node import ContainerNode
from harness.cell.policy import Policy
from harness.cell.profile import Profile, load_profile
from harness.cell.traces import traces
from harness.clock import now_ns
from harness.cloud import Cloud
from harness.errors import InfrastructureError
from harness.images import Images
from harness.region.api_path import Api
from harness.region.books import Books
from harness.region.cleanup import cleanup
from harness.region.credentials import HarnessKey
from harness.region.instances import INSTANCE_LABEL
from harness.region.process import start_client, start_region
from harness.region.router import client_name, container_pid, docker_client
from harness.region.timing import INSTANT, Timing
from harness.topology import REGION_NAME, ZONE, Topology

NODES = 3
VOLUME_GIB = 8
CLIENTS = 1
CELL_FILE = "cell.json"
LAUNCH_TIMEOUT_S = 60.0
FORM_TIMEOUT_S = 90.0
"""The distribution's dc-deadtime alone is 20 s."""

RUNNING_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 30.0
CLEANUP_TIMEOUT_S = 20.0

OWNING_ROLES = ("volume", "filesystem", "pbx", "address")
"""A node that runs the resources of all these roles is the active one."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell that is up. Everything it says is asked anew; it holds no state of its own."""

    topology: Topology
    policy: Policy
    profile: Profile
    nodes: tuple[ContainerNode, ...]
    public_ip: str
    volume_id: str
    allocation_id: str
    cloud: Cloud

    def node(self, name: str) -> ContainerNode:
        """The node of this name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise InfrastructureError(
            f"{name!r} is no node of the cell; there are: {', '.join(n.name for n in self.nodes)}"
        )

    def cluster(self) -> ClusterState:
        """What the cluster says of itself, from a node that has quorum; `InfrastructureError` when no node answers."""
        return boot.query_cluster(self.nodes, owned=self.owned)

    def forget_failures(self) -> None:
        """Let the cluster forget which actions failed, as an operator does after an incident. Idempotent."""
        if self.cluster().failed_actions:
            boot.spokesman(self.nodes).run(["crm_resource", "--cleanup"], timeout_s=CLEANUP_TIMEOUT_S)

    def cib(self) -> str:
        """The cluster's configuration and status as XML, from a node that has quorum where there is one."""
        return boot.query_cib(self.nodes)

    def client_pid(self, index: int) -> int:
        """Host pid of client machine 1, 2, …: its network namespace is where clients run."""
        return container_pid(client_name(self.topology, index))

    def region_event(self, event: str, *, instance_id: str, since_ns: int) -> int | None:
        """When (CLOCK_MONOTONIC, ns) the region's journal first saw `event` on an instance at or after `since_ns`."""
        try:
            lines = (self.topology.state_dir / "region-events.jsonl").read_text(encoding="utf-8").splitlines(True)
        except FileNotFoundError:
            return None
        for row in (json.loads(line) for line in lines if line.endswith("\n")):
            if row["event"] == event and row.get("instance_id") == instance_id and row["time_ns"] >= since_ns:
                return int(row["time_ns"])
        return None

    def left_behind(self) -> list[str]:
        """Traces of faults on the nodes that no healthy cell has, in words."""
        return traces(self.nodes)

    @property
    def owned(self) -> tuple[str, ...]:
        """Ids of the resources that make a node the active one."""
        return tuple(resource.id for resource in self.policy.resource if resource.role in OWNING_ROLES)


def up(
    topology: Topology,
    *,
    policy: Policy,
    profile: Profile,
    images: Images,
    progress: Callable[[str], None],
    timing: Timing = INSTANT,
    seed: int = 0,
    api: Api = "endpoint",
    own_public_addresses: bool = False,
    found: Books | None = None,
) -> Cell:
    """Bring a cell up, from nothing to a PBX that answers at its Elastic IP.

    With `api` "public" the nodes reach the EC2 API over the internet only, hence with a public address: the Elastic
    IP's owner, or all of them when they have `own_public_addresses`. Books that were `found` are used and left alone.

    `InfrastructureError` says which step failed and what was last seen; the caller removes what is there by then.
    """
    region = start_region(
        topology,
        node_image_names=[images.node],
        timing=timing,
        seed=seed,
        localstack_image=images.localstack,
        found=found,
        api=api,
    )
    cloud = _cloud(topology, region.key)
    with _workers() as pool:
        clients = [pool.submit(start_client, topology, index) for index in range(1, CLIENTS + 1)]
        volume, address = pool.submit(cloud.create_volume, size_gib=VOLUME_GIB), pool.submit(cloud.allocate_address)
        private_ips = {f"pbx-{n}": str(topology.node_address(n)) for n in range(1, NODES + 1)}
        subnet_id = cloud.create_network(topology.vpc_subnet)
        progress(f"region up; launching {NODES} instances")
        ids = cloud.run_instances(
            private_ips,
            image=images.node,
            subnet_id=subnet_id,
            timeout_s=LAUNCH_TIMEOUT_S,
            own_public_addresses=own_public_addresses,
        )
        cell = Cell(
            topology=topology,
            policy=policy,
            profile=profile,
            nodes=tuple(container_node(name, ids[name], private_ips[name]) for name in private_ips),
            public_ip=address.result().public_ip,
            volume_id=volume.result(),
            allocation_id=address.result().allocation_id,
            cloud=cloud,
        )
        save(cell)
        facts = cell_facts(cell)
        files = boot.node_files(policy, profile, facts, endpoint_url=region.guest_endpoint_url)
        boot.side_by_side(lambda item: item[0].put(item[1]), zip(cell.nodes, files, strict=True))
        progress("instances run; preparing the volume, starting the cluster")
        prepared = pool.submit(_prepare, cell, facts)
        boot.start_cluster(cell.nodes)
        prepared.result()
        boot.release(cell.nodes[0], timeout_s=FORM_TIMEOUT_S)
        progress("volume ready, cluster forming; starting the PBX")
        state = boot.wait_running(cell.nodes, owned=cell.owned, timeout_s=RUNNING_TIMEOUT_S)
        client_pid = clients[0].result()
        if profile.sip.udp_port:
            port = profile.sip.udp_port
            boot.wait_answer(client_pid, address=cell.public_ip, port=port, timeout_s=ANSWER_TIMEOUT_S)
    progress(f"{state.active} answers at {cell.public_ip}")
    return cell


def load(cell_name: str) -> Cell:
    """A cell that is up, from its description; `InfrastructureError` when there is none of this name."""
    path = topologies.STATE_ROOT / cell_name / CELL_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InfrastructureError(
            f"cell {cell_name!r} is not up; `pbx-chaos up --cell {cell_name}` brings it up"
        ) from None
    except PermissionError:
        raise InfrastructureError(f"can't read {path}: pbx-chaos needs root") from None
    try:
        return _described(cell_name, json.loads(text))
    except (KeyError, TypeError, ValueError) as error:
        raise InfrastructureError(
            f"{path} is of another version of pbx-chaos ({type(error).__name__}): take the cell down with "
            f"`pbx-chaos down --cell {cell_name}`"
        ) from error


def _described(cell_name: str, row: dict[str, Any]) -> Cell:
    topology = Topology(cell=cell_name, slot=row["slot"])
    return Cell(
        topology=topology,
        policy=TypeAdapter(Policy).validate_python(row["policy"]),
        profile=load_profile(row["profile"]),
        nodes=tuple(ContainerNode(**node) for node in row["nodes"]),
        public_ip=row["public_ip"],
        volume_id=row["volume_id"],
        allocation_id=row["allocation_id"],
        cloud=_cloud(topology, HarnessKey.read(topology.state_dir)),
    )


def down(topology: Topology) -> list[str]:
    """Cut everything's power and remove it; returns what was removed, and what could not be. Idempotent."""
    return cleanup(topology)


def save(cell: Cell) -> None:
    """Write cell.json: all that `load` and the ownership observer need. It holds no secret."""
    row = {
        "slot": cell.topology.slot,
        "policy": TypeAdapter(Policy).dump_python(cell.policy, mode="json"),
        "profile": str(cell.profile.folder / "profile.toml"),
        "nodes": [asdict(node) for node in cell.nodes],
        "public_ip": cell.public_ip,
        "volume_id": cell.volume_id,
        "allocation_id": cell.allocation_id,
        "data_dir": cell.profile.data_dir,
        "pbx_process": cell.profile.main_process,
        "saved_ns": now_ns(),
    }
    path = cell.topology.state_dir / CELL_FILE
    new = path.with_suffix(".new")
    new.write_text(json.dumps(row, indent=1), encoding="utf-8")
    new.replace(path)


def cell_facts(cell: Cell) -> CellFacts:
    """What the configuration of the nodes is made from."""
    return CellFacts(
        cluster_name=cell.topology.cell,
        nodes=tuple(
            NodeFacts(node_id=n, name=node.name, instance_id=node.instance_id, addresses=(node.private_ip,))
            for n, node in enumerate(cell.nodes, start=1)
        ),
        volume_id=cell.volume_id,
        allocation_id=cell.allocation_id,
        public_ip=cell.public_ip,
        region=REGION_NAME,
        zone=ZONE,
        data_dir=cell.profile.data_dir,
    )


def _prepare(cell: Cell, facts: CellFacts) -> None:
    """File system and first data, on the first node; detached afterwards, for the cluster to attach."""
    first = cell.nodes[0]
    cell.cloud.attach(cell.volume_id, first.instance_id)
    boot.prepare_volume(first, device=volume_device(cell.volume_id), profile=cell.profile, facts=facts)
    cell.cloud.detach(cell.volume_id)


def volume_device(volume_id: str) -> str:
    """The name by which a guest finds a volume, whatever its NVMe number (Amazon EBS and NVMe on Linux)."""
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"


def container_node(name: str, instance_id: str, private_ip: str) -> ContainerNode:
    """The node that runs as this instance."""
    found = docker_client().api.containers(filters={"label": f"{INSTANCE_LABEL}={instance_id}"})
    if len(found) != 1:
        raise InfrastructureError(f"{name}: {len(found)} running containers are instance {instance_id}, not one")
    return ContainerNode(name=name, instance_id=instance_id, private_ip=private_ip, container=found[0]["Id"])


def _cloud(topology: Topology, key: HarnessKey) -> Cloud:
    return Cloud(
        endpoint_url=topology.endpoint_url, access_key_id=key.access_key_id, secret_access_key=key.secret_access_key
    )


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Threads for what runs beside; on an error what has not begun is dropped, so that the error is told soon."""
    pool = ThreadPoolExecutor(max_workers=8)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
