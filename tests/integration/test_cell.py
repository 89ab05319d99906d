"""A whole cell on the real region: up, found again by another process, watched, its active node lost and back.

On the session's cell, whatever ran on it before, in the order of the file: the last ones injure it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import history
from harness.cell.boot import HOLD, wait_answer
from harness.cell.cell import Cell, load
from harness.clock import now_ns
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.faults.node import power_off
from harness.history import Op
from harness.region.process import region_state

pytestmark = pytest.mark.integration

NAMES = ["pbx-1", "pbx-2", "pbx-3"]


def test_a_cell_is_up_when_one_node_has_everything_and_answers(cell: Cell) -> None:
    state = cell.cluster()
    assert list(state.online) == NAMES
    assert state.active in NAMES
    assert {resource.role for resource in state.resources} == {"Started"}
    assert not state.failed_actions
    assert not [fencing for fencing in state.fencing if fencing.status != "success"]
    assert cell.cloud.address_owner(cell.allocation_id) == cell.node(state.active).instance_id
    attachment = cell.cloud.volume_attachment(cell.volume_id)
    assert attachment is not None
    assert attachment.instance_id == cell.node(state.active).instance_id
    assert region_state(cell.topology)["addresses"] == {cell.public_ip: cell.node(state.active).private_ip}
    wait_answer(cell.client_pid(1), address=cell.public_ip, port=5060, timeout_s=1)


def test_the_configuration_is_the_policys_and_the_profiles_alone(cell: Cell) -> None:
    cib = cell.cib()
    assert HOLD not in cib
    assert cell.volume_id in cib
    verified = cell.nodes[0].run(["crm_verify", "--live-check", "-V"], timeout_s=10)
    assert not verified.stdout.strip() + verified.stderr.strip()


def test_another_process_finds_the_same_cell(cell: Cell) -> None:
    found = load(cell.topology.cell)
    assert found.nodes == cell.nodes
    assert found.policy == cell.policy
    assert found.profile == cell.profile
    assert (found.public_ip, found.volume_id, found.allocation_id) == (
        cell.public_ip, cell.volume_id, cell.allocation_id,
    )  # fmt: skip
    assert found.cluster().active == cell.cluster().active


def test_a_healthy_cell_has_no_traces_of_faults(cell: Cell) -> None:
    assert cell.left_behind() == []


def test_one_owner_before_during_and_after_a_lost_node(cell: Cell, tmp_path: Path) -> None:
    out = tmp_path / "ownership.jsonl"
    argv = [
        sys.executable,
        "-m",
        "harness.cell.observe",
        "--state-dir",
        str(cell.topology.state_dir),
        "--out",
        str(out),
    ]
    observer = subprocess.Popen(argv)
    try:
        before = cell.cluster()
        active = before.active
        assert active is not None
        began = time.monotonic()
        with power_off(active).inject(cell) as landed:
            assert landed.observed_by == "region journal: links cut"
            survivor = wait_for("another active node", lambda: other_active(cell, active), timeout_s=60)
            wait_answer(cell.client_pid(1), address=cell.public_ip, port=5060, timeout_s=30)
            print(f"answers again {(now_ns() - landed.at_ns) / 1e9:.1f} s after the power was cut")
        wait_for("all nodes back", lambda: list(cell.cluster().online) == NAMES, timeout_s=60)
        lasted_s = time.monotonic() - began
    finally:
        observer.send_signal(signal.SIGTERM)
        observer.wait(timeout=5)
    samples = [op for op in history.read(out) if op.type == "ok"]
    assert len(samples) > 0.9 * 10 * lasted_s
    assert owner(samples[0]) == active
    assert owner(samples[-1]) == survivor
    assert not [op for op in samples if len(op.value["mounted"]) > 1 or len(op.value["pbx"]) > 1]
    off = [op for op in samples if active not in op.value["powered"]]
    assert abs(off[0].time_ns - landed.at_ns) < 300_000_000
    assert samples[-1].value["powered"] == NAMES
    state = cell.cluster()
    assert state.active == survivor
    assert {fencing.target for fencing in set(state.fencing) - set(before.fencing)} <= {active}
    assert not state.failed_actions
    assert cell.left_behind() == []


def test_a_cell_that_is_not_up_is_named() -> None:
    with pytest.raises(InfrastructureError, match="cell 'nowhere' is not up"):
        load("nowhere")


def other_active(cell: Cell, lost: str) -> str | None:
    active = cell.cluster().active
    return active if active != lost else None


def owner(op: Op) -> str | None:
    """The one node that owns everything in this sample."""
    name = op.value["address"]
    return str(name) if op.value["mounted"] == op.value["pbx"] == [name] else None
