"""Roles resolve to nodes; a power-off lands when it is seen and heals whatever happens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import InfrastructureError
from harness.faults.node import PowerOff, power_off
from harness.faults.targets import resolve
from harness.faults.types import dump, load

NODES = ["pbx-2", "pbx-1", "pbx-3"]


@pytest.mark.parametrize(
    ("target", "active", "dc", "expected"),
    [
        ("active", "pbx-2", None, "pbx-2"),
        ("standby", "pbx-1", None, "pbx-2"),
        ("standby", "pbx-2", None, "pbx-1"),
        ("dc", "pbx-1", "pbx-3", "pbx-3"),
        ("pbx-3", None, None, "pbx-3"),
    ],
)
def test_resolve(target: str, active: str | None, dc: str | None, expected: str) -> None:
    assert resolve(target, nodes=NODES, active=active, dc=dc) == expected


@pytest.mark.parametrize(
    ("target", "nodes", "words"),
    [
        ("active", NODES, "no node is active right now"),
        ("dc", NODES, "no node is dc right now"),
        ("pbx-4", NODES, "'pbx-4' is neither a node"),
    ],
)
def test_a_role_nobody_has_is_an_error(target: str, nodes: list[str], words: str) -> None:
    with pytest.raises(InfrastructureError, match=words):
        resolve(target, nodes=nodes, active=None, dc=None)


def test_a_lonely_node_has_no_standby() -> None:
    with pytest.raises(InfrastructureError, match="no node is standby right now"):
        resolve("standby", nodes=["pbx-1"], active="pbx-1", dc=None)


def test_a_fault_is_what_was_written_down() -> None:
    assert load(dump(power_off("active"))) == power_off("active")


class Cloud:
    def __init__(self, *, dies: bool = True) -> None:
        self.calls: list[str] = []
        self.dies = dies

    def stop(self, instance_id: str, *, power_off: bool) -> None:
        self.calls.append(f"stop {instance_id} power_off={power_off}")

    def instance_state(self, instance_id: str) -> str:
        return "stopped" if self.dies else "stopping"

    def ensure_started(self, instance_id: str, *, timeout_s: float) -> None:
        self.calls.append(f"start {instance_id}")


def cell(cloud: Cloud, *, cut_ns: int | None = None) -> Any:
    nodes = [SimpleNamespace(name=name, instance_id=f"i-{name}") for name in NODES]
    return SimpleNamespace(
        nodes=nodes,
        node=lambda name: next(n for n in nodes if n.name == name),
        cloud=cloud,
        cluster=lambda: SimpleNamespace(active="pbx-2", dc="pbx-1"),
        region_event=lambda event, *, instance_id, since_ns: cut_ns,
    )


def test_the_role_is_resolved_once() -> None:
    assert power_off("active").resolved(cell(Cloud())) == PowerOff(target="pbx-2")


def test_landed_when_the_links_were_cut_and_healed_by_starting() -> None:
    cloud = Cloud()
    with power_off("pbx-2").inject(cell(cloud, cut_ns=123)) as landed:
        assert (landed.target, landed.at_ns) == ("pbx-2", 123)
        assert cloud.calls == ["stop i-pbx-2 power_off=True"]
    assert cloud.calls[1:] == ["start i-pbx-2"]


def test_without_a_region_journal_it_landed_when_ec2_said_so() -> None:
    with power_off("pbx-2").inject(cell(Cloud())) as landed:
        assert landed.observed_by == "EC2: stopped"


def test_what_ec2_only_promises_did_not_land_and_is_healed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.faults.node.LAND_TIMEOUT_S", 0)
    cloud = Cloud(dies=False)
    with pytest.raises(InfrastructureError, match="the power off of pbx-2"), power_off("pbx-2").inject(cell(cloud)):
        pytest.fail("landed")
    assert cloud.calls[-1] == "start i-pbx-2"
