"""Every fault on a real cell: its injury is there while it is held, and gone after it, whoever heals it.

In maintenance mode, so that the cluster does not mend what is looked at; what it does about a fault is for scenarios.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from harness.cell.boot import wait_answer
from harness.cell.cell import Cell
from harness.cell.node import Node
from harness.cloud_calls import CloudError
from harness.command import CommandFailed, wait_for
from harness.errors import InfrastructureError
from harness.faults.address import address_moved, address_taken
from harness.faults.disk import volume_hangs, volume_slow
from harness.faults.network import black_hole, loss, partition
from harness.faults.node import freeze, host_fails, shut_down
from harness.faults.operator import move, standby
from harness.faults.process import crash, hang
from harness.faults.resources import no_capacity, no_descriptors, slow_cpu, volume_full
from harness.faults.types import Fault, dump, load

CALM = 6
"""So many looks in a row, half a second apart, must find nothing failed: monitors run once a second."""

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def untended(cell: Cell) -> Iterator[Cell]:
    """The session's cell, while its cluster looks on."""
    node = cell.nodes[0]
    attribute = ["crm_attribute", "--type", "crm_config", "--name", "maintenance-mode"]
    node.run([*attribute, "--update", "true"], timeout_s=10)
    yield cell
    node.run([*attribute, "--delete"], timeout_s=10)
    (pbx,) = (resource.id for resource in cell.policy.resource if resource.role == "pbx")
    node.run(["crm_resource", "--restart", "--resource", pbx], timeout_s=60)
    wait_answer(cell.client_pid(1), address=cell.public_ip, port=cell.profile.sip.udp_port or 0, timeout_s=60)
    calm = itertools.accumulate(iter(lambda: forgets(cell), None), lambda row, good: row + 1 if good else 0)
    wait_for("a cluster that stays at rest", lambda: next(calm) > CALM, timeout_s=60, every_s=0.5)


def active(cell: Cell) -> str:
    """Who is active: nobody for a moment in a cluster whose members have just changed, and that asks them anew."""
    return wait_for("an active node", lambda: cell.cluster().active, timeout_s=60, every_s=0.3)


def aimed(fault: Any, cell: Cell) -> Any:
    """The fault with its role resolved, once somebody has the role."""

    def found() -> Any:
        try:
            return fault.resolved(cell)
        except InfrastructureError:
            return None

    return wait_for("somebody to hit", found, timeout_s=60, every_s=0.3)


def forgets(cell: Cell) -> bool:
    """Whether nothing is failed any more; what has failed is forgotten by the next time."""
    cell.forget_failures()
    state = cell.cluster()
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
    fault = aimed(hang("active", part), untended)
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


def ping(node: Node, address: str, *, size_bytes: int = 56) -> bool:
    done = node.run(["ping", "-c1", "-W1", "-s", str(size_bytes), address], timeout_s=3, check=False)
    return done.ok


def test_who_is_cut_off_hears_nothing_from_the_others_until_healed(untended: Cell) -> None:
    fault = aimed(partition("standby", "pbx-3"), untended)
    one, three = untended.node(fault.target), untended.node("pbx-3")
    assert ping(one, three.private_ip)
    with fault.inject(untended) as landed:
        assert landed.target == one.name
        assert not ping(one, three.private_ip)
        assert not ping(three, one.private_ip)
        assert ping(one, str(untended.topology.endpoint_address))
        assert any("filter" in trace for trace in untended.left_behind())
    heal_twice(fault, untended)
    assert ping(one, three.private_ip)
    assert untended.left_behind() == []


def test_the_api_alone_can_be_out_of_reach(untended: Cell) -> None:
    fault = aimed(partition("active", "api"), untended)
    node, peer = untended.node(fault.target), untended.node("pbx-3" if fault.target != "pbx-3" else "pbx-2")
    endpoint = str(untended.topology.endpoint_address)
    assert ping(node, endpoint)
    with fault.inject(untended):
        assert not ping(node, endpoint)
        assert ping(node, peer.private_ip)
        wait_answer(untended.client_pid(1), address=untended.public_ip, port=5060, timeout_s=2)
    assert ping(node, endpoint)


def test_clients_alone_can_be_out_of_reach_one_way_is_enough(untended: Cell) -> None:
    fault = aimed(partition("active", "clients", direction="in"), untended)
    node, peer = untended.node(fault.target), untended.node("pbx-3" if fault.target != "pbx-3" else "pbx-2")
    with fault.inject(untended):
        with pytest.raises(InfrastructureError):
            wait_answer(untended.client_pid(1), address=untended.public_ip, port=5060, timeout_s=0.5)
        assert ping(node, peer.private_ip)
    wait_answer(untended.client_pid(1), address=untended.public_ip, port=5060, timeout_s=2)


def test_a_black_hole_lets_small_packets_pass_and_loss_some_of_all(untended: Cell) -> None:
    one, three = untended.node("pbx-1"), untended.node("pbx-3")
    with black_hole("pbx-1", 600, "pbx-3").inject(untended):
        assert ping(one, three.private_ip)
        assert not ping(one, three.private_ip, size_bytes=1000)
    with loss("pbx-1", 0.5, "pbx-3", direction="out").inject(untended):
        done = one.run(["ping", "-i0.01", "-c200", "-W1", "-q", three.private_ip], timeout_s=10, check=False)
        received = int(done.stdout.split(" received")[0].split()[-1])
        assert 50 < received < 150  # binomial: 7 standard deviations
    assert ping(one, three.private_ip, size_bytes=1000)


WRITE = "(dd if=/dev/zero of=$1/.written bs=4k count=1 oflag=direct && touch /run/written) >/dev/null 2>&1 &"


def test_a_volume_that_hangs_answers_nobody_and_then_everybody(untended: Cell) -> None:
    node = untended.node(active(untended))
    with volume_hangs().inject(untended) as landed:
        assert landed.target == untended.volume_id
        node.run(["sh", "-c", WRITE, "sh", untended.profile.data_dir], timeout_s=5)
        assert node.run(["sh", "-c", "sleep 0.3; test ! -e /run/written"], timeout_s=5, check=False).ok
    heal_twice(volume_hangs(), untended)
    wait_for("the write", lambda: node.run(["test", "-e", "/run/written"], timeout_s=5, check=False).ok, timeout_s=5)
    node.run(["rm", "/run/written", f"{untended.profile.data_dir}/.written"], timeout_s=5)
    with volume_slow(latency_ms=300).inject(untended):
        argv = ["dd", "if=/dev/zero", f"of={untended.profile.data_dir}/.written", "bs=4k", "count=1", "oflag=direct"]
        assert node.run(argv, timeout_s=10).took_s > 0.3
    node.run(["rm", f"{untended.profile.data_dir}/.written"], timeout_s=5)


def test_a_node_is_shut_down_in_good_order_or_comes_back_from_a_dead_host(untended: Cell) -> None:
    node = untended.node("pbx-3" if active(untended) != "pbx-3" else "pbx-2")
    with shut_down(node.name).inject(untended) as landed:
        assert landed.observed_by == "region journal: shutdown asked"
        untended.cloud.wait_state(node.instance_id, "stopped", timeout_s=40)
    assert untended.cloud.instance_state(node.instance_id) == "running"
    with host_fails(node.name, impaired_s=0.5).inject(untended) as landed:
        assert landed.observed_by == "region journal: host failed"
        assert untended.cloud.instance_state(node.instance_id) == "running"
        wait_for("the node", lambda: ran(node), timeout_s=30)
    heal_twice(host_fails(node.name), untended)
    wait_for("all online", lambda: len(untended.cluster().online) == 3, timeout_s=40)


def ran(node: Node) -> bool:
    try:
        return node.run(["true"], timeout_s=1, check=False).ok
    except CommandFailed:
        return False


def test_a_frozen_node_stands_still_and_goes_on(untended: Cell) -> None:
    fault = aimed(freeze("standby"), untended)
    frozen, other = untended.node(fault.target), untended.node(active(untended))
    assert ping(other, frozen.private_ip)
    with fault.inject(untended):
        with pytest.raises(CommandFailed):
            frozen.run(["true"], timeout_s=0.3)
        assert untended.cloud.instance_state(frozen.instance_id) == "running"
    heal_twice(fault, untended)
    assert frozen.run(["true"], timeout_s=3).ok


def test_what_an_operator_said_is_taken_back(untended: Cell) -> None:
    before = untended.cib()
    for fault in (standby("pbx-3"), move("pbx-3")):
        assert "pbx-3-standby" not in before
        with fault.inject(untended) as landed:
            assert landed.target == "pbx-3"
            assert ("standby" in untended.cib()) == (fault.name == "standby of pbx-3")
            assert ("cli-ban" in untended.cib()) == (fault.name == "move away from pbx-3")
        heal_twice(fault, untended)
        assert 'name="standby"' not in untended.cib()
        assert "cli-ban" not in untended.cib()


def test_a_node_may_be_starved_of_cpu_time(untended: Cell) -> None:
    spin = ["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]
    node = untended.node("pbx-3")
    usual_s = node.run(spin, timeout_s=30).took_s
    with slow_cpu("pbx-3", 0.05).inject(untended):
        assert node.run(spin, timeout_s=60).took_s > 3 * usual_s
    heal_twice(slow_cpu("pbx-3", 0.05), untended)
    assert node.run(spin, timeout_s=30).took_s < 3 * usual_s


def test_a_process_may_be_out_of_descriptors(untended: Cell) -> None:
    fault = aimed(no_descriptors("active", "media"), untended)
    node = untended.node(fault.target)
    limit = ["sh", "-c", "grep 'open files' /proc/$(pidof rtpengine)/limits"]
    before = node.run(limit, timeout_s=5).stdout.split()[3]
    with fault.inject(untended):
        assert node.run(limit, timeout_s=5).stdout.split()[3] == "1"
    assert node.run(limit, timeout_s=5).stdout.split()[3] == before
    heal_twice(fault, untended)


def test_a_volume_may_be_full(untended: Cell) -> None:
    node = untended.node(active(untended))
    write = ["sh", "-c", 'head -c 8M /dev/zero >"$1/.written"', "sh", untended.profile.data_dir]
    with volume_full().inject(untended):
        assert not node.run(write, timeout_s=10, check=False).ok
    assert node.run(write, timeout_s=10).ok
    node.run(["rm", f"{untended.profile.data_dir}/.written"], timeout_s=5)
    heal_twice(volume_full(), untended)


def test_a_zone_without_capacity_starts_nobody(untended: Cell) -> None:
    with no_capacity().inject(untended), pytest.raises(CloudError, match="InsufficientInstanceCapacity"):
        untended.cloud.launch_like(untended.nodes[0].instance_id, name="x", private_ip="198.18.30.99", timeout_s=5)
    heal_twice(no_capacity(), untended)


def test_the_address_may_be_moved_or_taken_behind_the_clusters_back(untended: Cell) -> None:
    fault = aimed(address_moved("standby"), untended)
    owner = untended.cloud.address_owner(untended.allocation_id)
    for each in (fault, address_taken()):
        with each.inject(untended):
            assert untended.cloud.address_owner(untended.allocation_id) != owner
            with pytest.raises(InfrastructureError):
                wait_answer(untended.client_pid(1), address=untended.public_ip, port=5060, timeout_s=0.3)
        heal_twice(each, untended)
        assert untended.cloud.address_owner(untended.allocation_id) == owner
        wait_answer(untended.client_pid(1), address=untended.public_ip, port=5060, timeout_s=2)


def test_what_crashes_is_gone(untended: Cell) -> None:
    """The last of them: nobody starts it again before the cluster tends to it."""
    fault = aimed(crash("active", "prompts"), untended)
    assert fault.unmet(untended) is not None
    fault = aimed(crash("active", "sessions"), untended)
    node = untended.node(fault.target)
    with fault.inject(untended):
        assert states(node, "redis-server") == set()
    heal_twice(fault, untended)
    with pytest.raises(InfrastructureError, match="no process called redis-server"), fault.inject(untended):
        pytest.fail("landed on nobody")
