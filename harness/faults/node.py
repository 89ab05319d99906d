"""Injuries of whole nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.clock import now_ns
from harness.faults.targets import resolve
from harness.faults.types import Landed

if TYPE_CHECKING:
    from harness.cell.cell import Cell


@dataclass(frozen=True, kw_only=True)
class PowerOff:
    """The node is gone within a moment, nothing flushed, nothing closed: EC2 StopInstances with SkipOsShutdown.

    Landed when EC2 no longer says `running`. Locally the region's journal tells the moment the links were cut, which
    is the earlier and exact one. Healed by starting the instance, unless someone (fencing) already did.
    """

    target: str

    @property
    def name(self) -> str:
        return f"power off {self.target}"

    def resolved(self, cell: Cell) -> PowerOff:
        state = cell.cluster()
        return replace(
            self, target=resolve(self.target, nodes=[n.name for n in cell.nodes], active=state.active, dc=state.dc)
        )

    def unmet(self, cell: Cell) -> str | None:
        return None

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        node = cell.node(self.target)
        try:
            asked_ns = now_ns()
            cell.cloud.stop(node.instance_id, power_off=True)
            cell.cloud.wait_not_running(node.instance_id, timeout_s=30)
            cut_ns = cell.region_event("links_cut", instance_id=node.instance_id, since_ns=asked_ns)
            yield Landed(
                target=node.name,
                at_ns=cut_ns or now_ns(),
                observed_by="region journal: links cut" if cut_ns else "EC2: no longer running",
            )
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        cell.cloud.ensure_started(cell.node(self.target).instance_id, timeout_s=90)


def power_off(target: str) -> PowerOff:
    """Cut the power of `active`, `standby`, `dc` or a node by name."""
    return PowerOff(target=target)
