"""What faults have in common by what they are aimed at: one node (a role that becomes a node, and a node that is given
back), or the cell as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from harness.command import CommandFailed, wait_for
from harness.faults.targets import resolve

if TYPE_CHECKING:
    from harness.cell.cell import Cell
    from harness.cell.node import Node

START_TIMEOUT_S = 90.0
HEAL_TIMEOUT_S = 30.0
"""How long a node that is said to run may refuse the command that heals it: it may just be booting."""


class OnCell:
    """A fault of the cell as a whole: it has no target to resolve, and can be had wherever the cell is."""

    def resolved(self, cell: Cell) -> Self:
        return self

    def unmet(self, cell: Cell) -> str | None:
        return None


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

    def heal_in_guest(self, cell: Cell, argv: Sequence[str]) -> None:
        """Run what heals on the node, if it still has anything to heal; then give it back.

        A node that is off has lost the injury with its memory. `TimedOut` when a node that runs can't be healed.
        """
        node = self.node(cell)
        refused = "not asked"

        def healed() -> bool:
            nonlocal refused
            if cell.cloud.instance_state(node.instance_id) != "running":
                return True
            try:
                done = node.run(argv, timeout_s=5, check=False)
            except CommandFailed as error:
                refused = str(error)
                return False
            refused = done.stderr.strip() or f"exit code {done.code}"
            return done.ok

        wait_for(
            f"the healing of {self.target}", healed, timeout_s=HEAL_TIMEOUT_S, every_s=0.2, last_seen=lambda: refused
        )
        self.give_back(cell)
