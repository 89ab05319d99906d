"""Every fault on a real cell: its injury is there while it is held, and gone after it, whoever heals it.

In maintenance mode, so that the cluster does not mend what is looked at; what it does about a fault is for scenarios.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.cell.boot import wait_answer
from harness.cell.cell import Cell
from harness.cell.node import Node
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.faults.process import crash, hang
from harness.faults.types import Fault, dump, load

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def untended(cell: Cell) -> Iterator[Cell]:
    """The session's cell, while its cluster looks on."""
    node = cell.nodes[0]
    attribute = ["crm_attribute", "--type", "crm_config", "--name", "maintenance-mode"]
    node.run([*attribute, "--update", "true"], timeout_s=10)
    yield cell
    node.run([*attribute, "--delete"], timeout_s=10)
    wait_answer(cell.client_pid(1), address=cell.public_ip, port=cell.profile.sip.udp_port or 0, timeout_s=60)
    wait_for("the cluster at rest", lambda: forgets(cell), timeout_s=60)


def forgets(cell: Cell) -> bool:
    """Whether nothing is failed any more; what has failed is forgotten by the next time."""
    state = cell.cluster()
    if state.failed_actions:
        cell.nodes[0].run(["crm_resource", "--cleanup"], timeout_s=20)
    return state.active is not None and not state.failed_actions


def states(node: Node, name: str) -> set[str]:
    """The states of all processes of this name, by another way than the fault's own."""
    done = node.run(["sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || true"], timeout_s=5)
    rows = [line.rpartition(")") for line in done.stdout.splitlines()]
    return {after.split()[0] for before, _, after in rows if before.partition("(")[2] == name} - {"Z"}


def heal_twice(fault: Fault, cell: Cell) -> None:
    """As another process does that only has the undo journal."""
    for _ in range(2):
        load(dump(fault)).heal(cell)


@pytest.mark.parametrize("part", ["pbx", "database", "media"])
def test_what_hangs_does_nothing_and_goes_on_when_healed(untended: Cell, part: str) -> None:
    fault = hang("active", part).resolved(untended)
    node = untended.node(fault.target)
    name = untended.profile.processes.get(part, (untended.profile.main_process,))[0]
    assert states(node, name) and not states(node, name) & {"T"}
    with fault.inject(untended) as landed:
        assert landed.target == node.name
        assert states(node, name) == {"T"}
        assert any(f"stopped {name}" in trace for trace in untended.left_behind())
    assert states(node, name) and not states(node, name) & {"T"}
    heal_twice(fault, untended)
    assert untended.left_behind() == []


def test_what_crashes_is_gone(untended: Cell) -> None:
    fault = crash("active", "prompts").resolved(untended)
    assert fault.unmet(untended) is not None
    fault = crash("active", "sessions").resolved(untended)
    node = untended.node(fault.target)
    with fault.inject(untended):
        assert states(node, "redis-server") == set()
    heal_twice(fault, untended)
    with pytest.raises(InfrastructureError, match="no process called redis-server"), fault.inject(untended):
        pytest.fail("landed on nobody")
