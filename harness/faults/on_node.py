"""What faults of one node have in common: a role that becomes a node, and a node that is given back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from harness.faults.targets import resolve

if TYPE_CHECKING:
    from harness.cell.cell import Cell
    from harness.cell.node import Node

START_TIMEOUT_S = 90.0


@dataclass(frozen=True, kw_only=True)
class OnNode:
    """A fault of one node: `target` is `active`, `standby`, `dc` or a node's name; once `resolved`, a name."""

    target: str

    def resolved(self, cell: Cell) -> Self:
        names = [node.name for node in cell.nodes]
        if self.target in names:
            return self
        state = cell.cluster()
        return replace(self, target=resolve(self.target, nodes=names, active=state.active, dc=state.dc))

    def unmet(self, cell: Cell) -> str | None:
        return None

    def node(self, cell: Cell) -> Node:
        """The node that is hit, of a fault that is resolved."""
        return cell.node(self.target)

    def give_back(self, cell: Cell) -> None:
        """Start the node where somebody (fencing) switched it off meanwhile, as an operator does in the end."""
        cell.cloud.ensure_started(self.node(cell).instance_id, timeout_s=START_TIMEOUT_S)
