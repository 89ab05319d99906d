"""Injuries of whole nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness import engine
from harness.clock import now_ns
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.faults.on_node import OnNode
from harness.faults.types import Landed
from harness.region.control import Control

if TYPE_CHECKING:
    from harness.cell.cell import Cell
    from harness.cell.node import Node

LAND_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class OffAndOn(OnNode):
    """The node goes off, asked for in one way or another: it landed when the region's journal tells of `event` (the
    exact moment). Where there is no such journal, `off_is_landed` takes EC2's word `stopped` for it.
    """

    event: ClassVar[str]
    what: ClassVar[str]
    off_is_landed: ClassVar[bool] = True

    def strike(self, cell: Cell, node: Node) -> None:
        raise NotImplementedError

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        node = self.node(cell)
        try:
            asked_ns = now_ns()
            self.strike(cell, node)
            yield wait_for(
                f"the {self.what} of {node.name}",
                lambda: self._landed(cell, node, since_ns=asked_ns),
                timeout_s=LAND_TIMEOUT_S,
            )
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        self.give_back(cell)

    def _landed(self, cell: Cell, node: Node, *, since_ns: int) -> Landed | None:
        at_ns = cell.region_event(self.event, instance_id=node.instance_id, since_ns=since_ns)
        if at_ns is not None:
            words = self.event.replace("_", " ")
            return Landed(target=node.name, at_ns=at_ns, observed_by=f"region journal: {words}")
        if self.off_is_landed and cell.cloud.instance_state(node.instance_id) == "stopped":
            return Landed(target=node.name, at_ns=now_ns(), observed_by="EC2: stopped")
        return None


@dataclass(frozen=True, kw_only=True)
class PowerOff(OffAndOn):
    """The node is gone within a moment, nothing flushed, nothing closed: EC2 StopInstances with SkipOsShutdown.

    EC2 says `stopping` as soon as it was asked, which proves nothing: it landed when the links were cut, or where there
    is no journal when EC2 says `stopped`. Healed by starting the instance, unless someone (fencing) already did.
    """

    event: ClassVar[str] = "links_cut"
    what: ClassVar[str] = "power off"
    observable: ClassVar[str] = "region journal: links cut; EC2: stopped"
    healed_by: ClassVar[str] = "the instance is started"
    on_ec2: ClassVar[str] = "yes (StopInstances, SkipOsShutdown)"

    @property
    def name(self) -> str:
        return f"power off {self.target}"

    def strike(self, cell: Cell, node: Node) -> None:
        cell.cloud.stop(node.instance_id, power_off=True)


@dataclass(frozen=True, kw_only=True)
class ShutDown(OffAndOn):
    """The node is shut down in good order, as by EC2 StopInstances: the guest stops what it runs, then its power goes.

    It landed when the guest was asked, or where there is no journal when EC2 says `stopped`.
    """

    event: ClassVar[str] = "shutdown_asked"
    what: ClassVar[str] = "shutdown"
    observable: ClassVar[str] = "region journal: shutdown asked; EC2: stopped"
    healed_by: ClassVar[str] = "the instance is started"
    on_ec2: ClassVar[str] = "yes (StopInstances)"

    @property
    def name(self) -> str:
        return f"shut down {self.target}"

    def strike(self, cell: Cell, node: Node) -> None:
        cell.cloud.stop(node.instance_id, power_off=False)


@dataclass(frozen=True, kw_only=True)
class HostFails(OffAndOn):
    """The host under the node dies, and EC2 brings the same instance back on another one after `impaired_s` ("Automatic
    instance recovery"): same id, same addresses, same volumes, memory lost.

    Nobody starts it but EC2; one that somebody stopped meanwhile (fencing) is started when healed.
    """

    event: ClassVar[str] = "host_failed"
    what: ClassVar[str] = "end of the host"
    off_is_landed: ClassVar[bool] = False
    observable: ClassVar[str] = "EC2: system status impaired, state running; region journal: host failed"
    healed_by: ClassVar[str] = "EC2 brings it back; one that was fenced meanwhile is started"
    on_ec2: ClassVar[str] = "no: nobody can fail a host of AWS"

    impaired_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.impaired_s <= 3600:
            raise ValueError(f"impaired_s is 0 to 3600 s, not {self.impaired_s}")

    @property
    def name(self) -> str:
        return f"host of {self.target} fails"

    def strike(self, cell: Cell, node: Node) -> None:
        Control(cell.topology).set(recover={"instance_id": node.instance_id, "impaired_s": self.impaired_s})


@dataclass(frozen=True, kw_only=True)
class Freeze(OnNode):
    """The whole machine stands still and goes on later where it was, unaware of the time between: the stale primary.

    Its links stay up, its kernel answers nobody. A stand-in for a stalled hypervisor; EC2 offers nothing like it.
    """

    observable: ClassVar[str] = "engine: paused; nothing answers"
    healed_by: ClassVar[str] = "the machine goes on; one that was fenced is started"
    on_ec2: ClassVar[str] = "no: nobody can freeze an EC2 instance from outside"

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


def power_off(target: str) -> PowerOff:
    """Cut the power of `active`, `standby`, `dc` or a node by name."""
    return PowerOff(target=target)


def shut_down(target: str) -> ShutDown:
    """Shut a node down in good order."""
    return ShutDown(target=target)


def host_fails(target: str, *, impaired_s: float = 10.0) -> HostFails:
    """The host under a node dies; the same instance comes back by itself, with empty memory."""
    return HostFails(target=target, impaired_s=impaired_s)


def freeze(target: str) -> Freeze:
    """Stop a whole machine in its tracks, and let it go on later as if nothing had been."""
    return Freeze(target=target)
