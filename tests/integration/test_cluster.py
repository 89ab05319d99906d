"""Bare corosync and Pacemaker on three real containers: formation, boot scripts, failover of dummies, rejoin, halt.

One cluster for all tests, which run in the order of the file: later ones injure it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from benchmarks.floor import DummyCluster
from harness import images
from harness.cell.node import File
from harness.cell.observe import Observer, Watched, WatchedNode
from harness.cell.policy import load_policy
from harness.command import CommandFailed, run
from harness.errors import InfrastructureError
from tests.integration import slots

pytestmark = pytest.mark.integration

CELL = slots.own("cluster")


@pytest.fixture(scope="module")
def cluster() -> Iterator[DummyCluster]:
    image = images.ensure(docker.from_env(), say=print).node
    cluster = DummyCluster(topology=CELL, policy=load_policy("tuned"), image=image)
    cluster.remove()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


def test_all_nodes_form_a_cluster_that_accepts_its_configuration(cluster: DummyCluster) -> None:
    state = cluster.state()
    assert state is not None
    assert state.online == ("pbx-1", "pbx-2", "pbx-3")
    assert state.active is not None
    assert not state.failed_actions
    assert not state.fencing, "nobody may be fenced while a healthy cluster forms"
    verified = cluster.nodes["pbx-1"].run(["crm_verify", "--live-check", "-V"], timeout_s=10)
    assert not verified.stdout.strip() + verified.stderr.strip()


def test_agents_and_fence_agents_inherit_what_they_need(cluster: DummyCluster) -> None:
    for daemon in ("pacemaker-fenced", "pacemaker-execd"):
        script = f"tr '\\0' '\\n' </proc/$(pidof {daemon})/environ"
        seen = cluster.nodes["pbx-2"].run(["sh", "-c", script], timeout_s=5).stdout.splitlines()
        assert "AWS_CONFIG_FILE=/etc/pbx-node/aws-config" in seen
        assert "PYTHONPATH=/opt/aws/lib/python3.11/site-packages" in seen
        assert "HOME=/root" in seen
        assert any(line.startswith("PATH=/usr/local/sbin:/usr/local/bin:") for line in seen)


def test_a_command_that_hangs_is_ended_in_the_guest_too(cluster: DummyCluster) -> None:
    node = cluster.nodes["pbx-1"]
    with pytest.raises(CommandFailed, match=r"pbx-1: sleep 987 did not end within 0.5 s"):
        node.run(["sleep", "987"], timeout_s=0.5)
    assert node.run(["pgrep", "-f", "^sleep 987"], timeout_s=5, check=False).code == 1


def test_files_go_in_and_out_with_mode_and_owner(cluster: DummyCluster) -> None:
    node = cluster.nodes["pbx-1"]
    content = bytes(range(256)) * 100
    node.put({"/opt/a/b": File(content=content, mode=0o640, uid=100, gid=101), "/opt/a/c": File(content=b"")})
    assert node.fetch("/opt/a/b") == content
    assert node.run(["stat", "-c", "%U:%G %a", "/opt/a/b"], timeout_s=5).stdout.strip() == "hacluster:haclient 640"
    with pytest.raises(InfrastructureError, match="pbx-1: fetch /opt/missing: not found"):
        node.fetch("/opt/missing")


def test_the_observer_sees_processes_of_the_guests(cluster: DummyCluster, tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text(json.dumps({"203.0.113.1": str(CELL.node_address(2))}))
    nodes = tuple(
        WatchedNode(name=n.name, instance_id=n.name, private_ip=n.private_ip, container=n.container)
        for n in cluster.nodes.values()
    )
    watched = Watched(nodes=nodes, data_dir="/srv/pbx", process="corosync", public_ip="203.0.113.1")
    observer = Observer(watched=watched, state_dir=tmp_path)
    samples = [observer.sample() for _ in range(3)]
    assert samples[-1].value["powered"] == samples[-1].value["pbx"] == ["pbx-1", "pbx-2", "pbx-3"]
    assert samples[-1].value["address"] == "pbx-2"


def test_the_resources_move_off_a_dead_node_once_it_is_fenced(cluster: DummyCluster) -> None:
    active = cluster.wait_running(cluster.policy, online=3)
    cluster.power_off(active)
    survivor = cluster.wait_running(cluster.policy, online=2, but=active, timeout_s=30)
    state = cluster.state(but=active)
    assert state is not None
    assert [(f.target, f.status) for f in state.fencing] == [(active, "success")]
    alerts = [json.loads(line) for line in cluster.nodes[survivor].fetch("/var/log/pbx-node/alerts.jsonl").splitlines()]
    told = {(a["kind"], a["node"], a["rsc"], a["task"]) for a in alerts}
    assert ("fencing", active, "", "st_notify_fence") in told
    assert ("resource", survivor, "pbx", "start") in told
    assert any(a["kind"] == "node" and a["node"] == active and a["desc"] == "lost" for a in alerts)


def test_a_fenced_node_that_is_started_again_joins_without_moving_anything(cluster: DummyCluster) -> None:
    off = next(name for name, node in cluster.nodes.items() if not is_running(node.container))
    before = cluster.state(but=off)
    run(["docker", "start", cluster.nodes[off].container], timeout_s=20)
    cluster.wait_running(cluster.policy, online=3, timeout_s=30)
    after = cluster.state()
    assert before is not None
    assert after is not None
    assert after.active == before.active
    assert not after.failed_actions


def test_an_orderly_shutdown_moves_the_resources_and_fences_nobody(cluster: DummyCluster) -> None:
    active = cluster.wait_running(cluster.policy, online=3)
    fenced = len(cluster.state().fencing)  # type: ignore[union-attr]
    run(["docker", "stop", "-t", "25", cluster.nodes[active].container], timeout_s=30)
    log = cluster.nodes[active].fetch("/var/log/pbx-node/boot.log").decode()
    assert "halt: pacemakerd stopped" in log
    assert "halt: corosync stopped" in log
    survivor = cluster.wait_running(cluster.policy, online=2, but=active, timeout_s=20)
    state = cluster.state(but=active)
    assert survivor != active
    assert state is not None
    assert len(state.fencing) == fenced


def is_running(container: str) -> bool:
    return run(["docker", "inspect", "-f", "{{.State.Running}}", container], timeout_s=10).stdout.strip() == "true"
