"""Injuries of the public address: moved behind the cluster's back, or taken away from everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.clock import now_ns
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.faults.on_node import OnCell, OnNode
from harness.faults.types import Landed

if TYPE_CHECKING:
    from harness.cell.cell import Cell

HEAL_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class AddressMoved(OnNode):
    """Somebody gives the Elastic IP to another node, as a script that nobody remembers does; the cluster is not told.

    Healed by giving it back to the active node, unless the cluster has done so.
    """

    holds: ClassVar[str] = "the address"
    observable: ClassVar[str] = "EC2: associated with the other node"
    healed_by: ClassVar[str] = "given back to the active node, unless the cluster did"
    on_ec2: ClassVar[str] = "yes"

    @property
    def name(self) -> str:
        return f"address moved to {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        thief = self.node(cell).instance_id
        owner = cell.cloud.address_owner(cell.allocation_id)
        if owner == thief:
            raise InfrastructureError(f"{self.target} has the address already: moving it there injures nobody")
        robbed = [node.name for node in cell.nodes if node.instance_id == owner]
        try:
            cell.cloud.associate(cell.allocation_id, thief)
            at_ns = now_ns()
            if cell.cloud.address_owner(cell.allocation_id) != thief:
                raise InfrastructureError(f"{self.target} did not get the address")
            hit = ", ".join([*robbed, self.target])
            yield Landed(target=hit, at_ns=at_ns, observed_by="EC2: associated")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        """By giving it to whoever has the volume: a node whose address was taken does not count as active."""
        _give_to_the_owner(cell, unless=lambda has: has != self.node(cell).instance_id)


@dataclass(frozen=True, kw_only=True)
class AddressTaken(OnCell):
    """The Elastic IP belongs to nobody: packets to it are lost. Healed by giving it back to the active node."""

    holds: ClassVar[str] = "the address"
    observable: ClassVar[str] = "EC2: associated with nobody"
    healed_by: ClassVar[str] = "given back to the active node, unless the cluster did"
    on_ec2: ClassVar[str] = "yes"

    @property
    def name(self) -> str:
        return "address taken from everybody"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            cell.cloud.disassociate(cell.allocation_id)
            at_ns = now_ns()
            if cell.cloud.address_owner(cell.allocation_id) is not None:
                raise InfrastructureError("the address still belongs to somebody")
            yield Landed(target=cell.public_ip, at_ns=at_ns, observed_by="EC2: disassociated")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        _give_to_the_owner(cell, unless=lambda has: has is not None)


def _give_to_the_owner(cell: Cell, *, unless: Callable[[str | None], bool]) -> None:
    """Give the address to the instance that has the volume, unless the cluster mended it meanwhile. `TimedOut` where
    nobody has the volume for `HEAL_TIMEOUT_S`."""

    def healed() -> bool:
        if unless(cell.cloud.address_owner(cell.allocation_id)):
            return True
        place = cell.cloud.volume_attachment(cell.volume_id)
        if place is None:
            return False
        cell.cloud.associate(cell.allocation_id, place.instance_id)
        return True

    wait_for("the address given back", healed, timeout_s=HEAL_TIMEOUT_S, every_s=0.5)


def address_moved(target: str = "standby") -> AddressMoved:
    """The Elastic IP is given to another node behind the cluster's back."""
    return AddressMoved(target=target)


def address_taken() -> AddressTaken:
    """The Elastic IP is taken from its owner behind the cluster's back."""
    return AddressTaken()
