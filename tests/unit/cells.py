"""Facts of a made-up cell, for the tests of what is generated from facts."""

from __future__ import annotations

from harness.cell.facts import CellFacts, NodeFacts


def facts(*, rings: int = 1, containers: bool = True) -> CellFacts:
    return CellFacts(
        cluster_name="cell",
        nodes=tuple(
            NodeFacts(
                node_id=n,
                name=f"pbx-{n}",
                instance_id=f"i-{n:017x}",
                addresses=tuple(f"198.18.{ring}.1{n}" for ring in range(rings)),
            )
            for n in (1, 2, 3)
        ),
        volume_id="vol-0123456789abcdef0",
        allocation_id="eipalloc-0123456789abcdef0",
        public_ip="203.0.113.1",
        region="us-east-1",
        zone="us-east-1a",
        containers=containers,
    )
