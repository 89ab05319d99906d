"""A node whose instance is terminated, replaced by a new one, on a whole cell of its own; and a host that dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import session
from harness.cell.boot import wait_answer
from harness.cell.cell import Cell, load
from harness.cell.replace import replace_node
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.interrupts import interrupts
from harness.lock import cell_lock
from harness.region.process import region_state
from harness.session import Request

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(240)]

NAMES = ["pbx-1", "pbx-2", "pbx-3"]
CELL = "mch-replace"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    out = tmp_path_factory.mktemp("runs")
    resolved = session.resolve(Request(policy="tuned", pbx="stand-in", cell=CELL, slot=3, out=Path(out)))
    with cell_lock(CELL, doing="pytest"):
        with interrupts() as gate:
            cell = session.bring_up(resolved, progress=print, gate=gate)
        try:
            yield cell
        finally:
            left = session.take_down(resolved.topology)
    assert not left, f"left behind: {left}"


def test_a_replacement_joins_and_takes_over(up: Cell) -> None:
    active = str(up.cluster().active)
    old, third = (node for node in up.nodes if node.name != active)
    with pytest.raises(InfrastructureError, match="only a node whose instance is terminated"):
        replace_node(up, old.name)
    up.cloud.terminate(old.instance_id)
    cell = replace_node(up, old.name)

    new = cell.node(old.name)
    assert new.instance_id != old.instance_id and new.private_ip == old.private_ip
    assert load(CELL).node(old.name) == new
    assert list(cell.cluster().online) == NAMES and cell.cluster().active == active
    assert cell.cloud.instance_state(old.instance_id) == "terminated"
    configuration = cell.cib().partition("<status")[0]
    assert old.instance_id not in configuration and f"{new.name}:{new.instance_id}" in configuration

    third.run(["crm_standby", "--node", third.name, "--update", "on"], timeout_s=10)
    cell.cloud.stop(cell.node(active).instance_id, power_off=True)
    wait_active(cell, new.name)
    assert cell.cloud.address_owner(cell.allocation_id) == new.instance_id
    third.run(["crm_standby", "--node", third.name, "--delete"], timeout_s=10)
    cell.cloud.ensure_started(cell.node(active).instance_id, timeout_s=60)
    wait_for("all nodes back", lambda: list(cell.cluster().online) == NAMES, timeout_s=60, every_s=0.5)


def test_the_fencing_of_a_terminated_node_is_confirmed_by_its_replacement(up: Cell) -> None:
    cell = load(CELL)
    active = str(cell.cluster().active)
    cell.cloud.terminate(cell.node(active).instance_id, power_off=True)
    cell = replace_node(cell, active)
    wait_for("some node active", lambda: cell.cluster().active, timeout_s=60, every_s=0.5)
    wait_answer(cell.client_pid(1), address=cell.public_ip, port=5060, timeout_s=30)
    assert list(cell.cluster().online) == NAMES
    assert set(region_state(cell.topology)["instances"]) == {node.instance_id for node in cell.nodes}


def wait_active(cell: Cell, name: str) -> None:
    wait_for(f"{name} active", lambda: cell.cluster().active == name, timeout_s=90, every_s=0.5)
    wait_answer(cell.client_pid(1), address=cell.public_ip, port=5060, timeout_s=30)
