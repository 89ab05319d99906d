"""Injuries of whole nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import engine
from harness.clock import now_ns
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.faults.on_node import OnNode
from harness.faults.types import Landed

if TYPE_CHECKING:
    from harness.cell.cell import Cell

LAND_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class PowerOff(OnNode):
    """The node is gone within a moment, nothing flushed, nothing closed: EC2 StopInstances with SkipOsShutdown.

    EC2 says `stopping` as soon as it was asked, which proves nothing: it landed when the region's journal tells that
    the links were cut (the exact moment), or where there is no such journal when EC2 says `stopped`. Healed by starting
    the instance, unless someone (fencing) already did.
    """

    @property
    def name(self) -> str:
        return f"power off {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        node = cell.node(self.target)
        try:
            asked_ns = now_ns()
            cell.cloud.stop(node.instance_id, power_off=True)
            yield wait_for(
                f"the power off of {node.name}",
                lambda: _off(cell, node.name, node.instance_id, since_ns=asked_ns),
                timeout_s=LAND_TIMEOUT_S,
            )
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        self.give_back(cell)


@dataclass(frozen=True, kw_only=True)
class Freeze(OnNode):
    """The whole machine stands still and goes on later where it was, unaware of the time between: the stale primary.

    Its links stay up, its kernel answers nobody. A stand-in for a stalled hypervisor; EC2 offers nothing like it.
    """

    @property
    def name(self) -> str:
        return f"freeze {self.target}"

    def unmet(self, cell: Cell) -> str | None:
        if all(getattr(node, "container", None) for node in cell.nodes):
            return None
        return "nobody can freeze an EC2 instance from outside"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            docker = engine.connect().api
            docker.pause(self._container(cell))
            if not docker.inspect_container(self._container(cell))["State"]["Paused"]:
                raise InfrastructureError(f"{self.target} did not freeze")
            yield Landed(target=self.target, at_ns=now_ns(), observed_by="engine: paused")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        docker = engine.connect().api
        if docker.inspect_container(self._container(cell))["State"]["Paused"]:
            docker.unpause(self._container(cell))
        self.give_back(cell)

    def _container(self, cell: Cell) -> str:
        return cell.node(self.target).container


def _off(cell: Cell, name: str, instance_id: str, *, since_ns: int) -> Landed | None:
    cut_ns = cell.region_event("links_cut", instance_id=instance_id, since_ns=since_ns)
    if cut_ns is not None:
        return Landed(target=name, at_ns=cut_ns, observed_by="region journal: links cut")
    if cell.cloud.instance_state(instance_id) == "stopped":
        return Landed(target=name, at_ns=now_ns(), observed_by="EC2: stopped")
    return None


def power_off(target: str) -> PowerOff:
    """Cut the power of `active`, `standby`, `dc` or a node by name."""
    return PowerOff(target=target)


def freeze(target: str) -> Freeze:
    """Stop a whole machine in its tracks, and let it go on later as if nothing had been."""
    return Freeze(target=target)
