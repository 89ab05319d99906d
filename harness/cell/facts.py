"""What only the cell knows, as data: its nodes, its volume, its address. With a policy and a profile it makes the
configuration of every node a pure function."""

from __future__ import annotations

from dataclasses import dataclass

CONTAINER_DEVIATIONS = (
    "corosync without real-time scheduling (sched_rr no): a container may not ask for it",
    "Pacemaker's load-threshold off unless the policy sets it: a container sees the whole host's load",
    "nodes reach the EC2 API on the VPC bridge, as through a VPC endpoint: losing the address does not cut it",
    "nodes share this host's CPUs, its kernel and its clock",
)
"""What a node as a container does otherwise than an EC2 instance would; stands in every result."""


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """One node. `addresses` has one private address per corosync ring."""

    node_id: int
    name: str
    instance_id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CellFacts:
    """The whole cell. `containers`: nodes share the host's CPUs and may not ask for real-time scheduling."""

    cluster_name: str
    nodes: tuple[NodeFacts, ...]
    volume_id: str
    allocation_id: str
    public_ip: str
    region: str
    zone: str
    data_dir: str = "/srv/pbx"
    containers: bool = True

    def fill(self, text: str) -> str:
        """`text` with `{volume_id}` and the other facts filled in."""
        return text.format(
            volume_id=self.volume_id,
            allocation_id=self.allocation_id,
            public_ip=self.public_ip,
            region=self.region,
            zone=self.zone,
            data_dir=self.data_dir,
        )
