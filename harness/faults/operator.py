"""What operators do to a cluster, on purpose or not: standby, a planned move, maintenance mode.

Not injuries of a machine, but reasons why a service moves, or is no longer looked after; played with Pacemaker's own
commands on a node that has quorum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.clock import now_ns
from harness.command import CommandFailed, wait_for
from harness.errors import InfrastructureError
from harness.faults.on_node import OnCell, OnNode
from harness.faults.types import Landed

if TYPE_CHECKING:
    from harness.cell.cell import Cell

COMMAND_TIMEOUT_S = 10.0
HEAL_TIMEOUT_S = 30.0
CONFIG = ("crm_attribute", "--type", "crm_config", "--name")


@dataclass(frozen=True, kw_only=True)
class Standby(OnNode):
    """The node stays a member and runs nothing: what it runs moves away in good order (a switchover)."""

    observable: ClassVar[str] = "the node attribute standby=on"
    healed_by: ClassVar[str] = "the attribute is removed"
    on_ec2: ClassVar[str] = "by SSM"

    @property
    def name(self) -> str:
        return f"standby of {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            _ask(cell, [*self._attribute, "--update", "on"])
            at_ns = now_ns()
            if _ask(cell, [*self._attribute, "--query", "--quiet"]).strip() != "on":
                raise InfrastructureError(f"{self.target} is not in standby")
            yield Landed(target=self.target, at_ns=at_ns, observed_by="cluster: standby=on")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        _ask(cell, [*self._attribute, "--delete"])

    @property
    def _attribute(self) -> list[str]:
        return ["crm_attribute", "--node", self.target, "--name", "standby"]


@dataclass(frozen=True, kw_only=True)
class Move(OnNode):
    """`crm_resource --move` of the service away from a node; the constraint that it leaves is cleared when healed."""

    holds: ClassVar[str] = "the service's place"
    observable: ClassVar[str] = "a location constraint cli-ban-…"
    healed_by: ClassVar[str] = "the constraint is cleared"
    on_ec2: ClassVar[str] = "by SSM"

    @property
    def name(self) -> str:
        return f"move away from {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            _ask(cell, ["crm_resource", "--ban", "--resource", _volume(cell), "--node", self.target])
            at_ns = now_ns()
            if f"cli-ban-{_volume(cell)}-on-{self.target}" not in cell.cib():
                raise InfrastructureError(f"the service was not banned from {self.target}")
            yield Landed(target=self.target, at_ns=at_ns, observed_by="cluster: location constraint")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        _ask(cell, ["crm_resource", "--clear", "--resource", _volume(cell), "--node", self.target])


@dataclass(frozen=True, kw_only=True)
class Maintenance(OnCell):
    """The cluster looks on: it starts, stops, monitors and recovers nothing."""

    holds: ClassVar[str] = "maintenance mode"
    observable: ClassVar[str] = "the cluster property maintenance-mode"
    healed_by: ClassVar[str] = "the property is removed"
    on_ec2: ClassVar[str] = "by SSM"

    @property
    def name(self) -> str:
        return "maintenance mode"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            _ask(cell, [*CONFIG, "maintenance-mode", "--update", "true"])
            at_ns = now_ns()
            if _ask(cell, [*CONFIG, "maintenance-mode", "--query", "--quiet"]).strip() != "true":
                raise InfrastructureError("the cluster is not in maintenance mode")
            yield Landed(target="cluster", at_ns=at_ns, observed_by="cluster: maintenance-mode=true")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        _ask(cell, [*CONFIG, "maintenance-mode", "--delete"])


def _volume(cell: Cell) -> str:
    """The resource that all others follow."""
    return next(resource.id for resource in cell.policy.resource if resource.role == "volume")


def _ask(cell: Cell, argv: Sequence[str]) -> str:
    """Run one of Pacemaker's commands on the first node that carries it out; what it printed."""
    refused = "no node was asked"

    def done() -> list[str]:
        nonlocal refused
        for node in cell.nodes:
            try:
                return [node.run(argv, timeout_s=COMMAND_TIMEOUT_S).stdout]
            except CommandFailed as error:
                refused = str(error)
        return []

    (printed,) = wait_for(argv[0], done, timeout_s=HEAL_TIMEOUT_S, every_s=0.5, last_seen=lambda: refused)
    return printed


def standby(target: str) -> Standby:
    """Put a node into standby: what runs there moves away."""
    return Standby(target=target)


def move(target: str = "active") -> Move:
    """Move the service away from a node."""
    return Move(target=target)


def maintenance() -> Maintenance:
    """Tell the cluster to look on and do nothing."""
    return Maintenance()
