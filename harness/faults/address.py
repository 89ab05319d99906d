"""Injuries of the public address: moved behind the cluster's back, or taken away from everybody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.clock import now_ns
from harness.errors import InfrastructureError
from harness.faults.on_node import OnCell, OnNode
from harness.faults.types import Landed

if TYPE_CHECKING:
    from harness.cell.cell import Cell


@dataclass(frozen=True, kw_only=True)
class AddressMoved(OnNode):
    """Somebody gives the Elastic IP to another node, as a script that nobody remembers does; the cluster is not told.

    Healed by giving it back to the active node, unless the cluster has done so.
    """

    observable: ClassVar[str] = "EC2: associated with the other node"
    healed_by: ClassVar[str] = "given back to the active node, unless the cluster did"
    on_ec2: ClassVar[str] = "yes"

    @property
    def name(self) -> str:
        return f"address moved to {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        thief = self.node(cell).instance_id
        try:
            cell.cloud.associate(cell.allocation_id, thief)
            at_ns = now_ns()
            if cell.cloud.address_owner(cell.allocation_id) != thief:
                raise InfrastructureError(f"{self.target} did not get the address")
            yield Landed(target=self.target, at_ns=at_ns, observed_by="EC2: associated")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        active = cell.cluster().active
        if active not in (None, self.target) and self._has_it(cell):
            cell.cloud.associate(cell.allocation_id, cell.node(str(active)).instance_id)

    def _has_it(self, cell: Cell) -> bool:
        return cell.cloud.address_owner(cell.allocation_id) == self.node(cell).instance_id


@dataclass(frozen=True, kw_only=True)
class AddressTaken(OnCell):
    """The Elastic IP belongs to nobody: packets to it are lost. Healed by giving it back to the active node."""

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
        active = cell.cluster().active
        if active is not None and cell.cloud.address_owner(cell.allocation_id) is None:
            cell.cloud.associate(cell.allocation_id, cell.node(active).instance_id)


def address_moved(target: str = "standby") -> AddressMoved:
    """The Elastic IP is given to another node behind the cluster's back."""
    return AddressMoved(target=target)


def address_taken() -> AddressTaken:
    """The Elastic IP is taken from its owner behind the cluster's back."""
    return AddressTaken()
