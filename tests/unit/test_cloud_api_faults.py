"""Faults of what nodes ask AWS, as a scenario injects them: they land, strike, and are healed alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from harness import topology as topologies
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.faults.cloud_api import ApiFault, api_fault, metadata_fault
from harness.faults.types import dump, load
from harness.region import metadata
from harness.region.control import Control
from harness.region.credentials import HarnessKey
from harness.topology import Topology
from tests.fronts import KEY, NODE_ID, NODE_KEY, Front

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def site(site: Front, monkeypatch: pytest.MonkeyPatch) -> Front:
    """The harness's own client finds it as a region's."""
    monkeypatch.setattr(Topology, "endpoint_url", site.url)
    HarnessKey(access_key_id=KEY, secret_access_key="x").write(site.topology.state_dir)
    return site


@pytest.fixture
def cell(site: Front) -> Any:
    nodes = [SimpleNamespace(name="pbx-1", instance_id=NODE_ID), SimpleNamespace(name="pbx-2", instance_id="i-2")]
    return SimpleNamespace(
        topology=site.topology,
        nodes=nodes,
        node=lambda name: next(n for n in nodes if n.name == name),
        cluster=lambda: SimpleNamespace(active="pbx-1", dc="pbx-2"),
    )


def test_it_lands_strikes_and_is_healed(site: Front, cell: Any) -> None:
    other = api_fault("reset", actions=["AttachVolume"])
    fault = api_fault("throttle", actions=["Describe*"], callers=["active"]).resolved(cell)
    assert fault.callers == ("pbx-1",)
    node = site.client("ec2", NODE_KEY)
    with other.inject(cell), fault.inject(cell) as landed:
        assert landed.target == "pbx-1" and "in force" in landed.observed_by
        with pytest.raises(ClientError, match="RequestLimitExceeded"):
            node.describe_addresses()
        assert fault.struck(cell) == 1
        fault.heal(cell)
        fault.heal(cell)
        assert [row["kind"] for row in site.shown()["api_faults"]] == ["reset"]
    node.describe_addresses()
    assert site.shown()["api_faults"] == []
    cleared = [row for row in site.journal.rows if row["event"] == "api_fault_cleared"]
    assert [row["struck"] for row in cleared] == [1, 0]


def test_it_is_what_was_written_down_and_any_process_can_heal_it(site: Front, cell: Any) -> None:
    fault = api_fault("latency", latency_s=2, actions=["Attach*"], callers=["pbx-1"], until_s=60)
    again = load(json.loads(json.dumps(dump(fault))))
    assert again == fault
    assert isinstance(again, ApiFault) and again.rule.id == fault.rule.id
    Control(cell.topology).set_api_faults(fault.rule)
    again.heal(cell)
    assert site.shown()["api_faults"] == []


def test_callers_that_are_none_are_unmet(cell: Any) -> None:
    assert api_fault("reset", callers=["pbx-7"]).unmet(cell) == "'pbx-7' is no caller of this cell"
    assert api_fault("reset", callers=["standby", "harness"]).unmet(cell) is None


def test_a_fault_that_can_not_be_is_refused_where_it_is_written_down() -> None:
    with pytest.raises(ValueError, match="latency_s"):
        api_fault("latency")
    with pytest.raises(ValueError, match="not 'shy'"):
        metadata_fault("active", "shy")


def test_the_region_says_why_it_refuses(cell: Any) -> None:
    with pytest.raises(InfrastructureError, match="no instance 'i-2'"):
        metadata_fault("pbx-2").heal(cell)


def test_metadata_fails_as_it_is_told(site: Front, cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "wait_switched", lambda topology, instance_id: None)
    fault = metadata_fault("active", "silent").resolved(cell)
    with fault.inject(cell) as landed:
        assert landed.observed_by == "metadata service: silent"
        assert site.shown()["metadata"] == {NODE_ID: "silent"}
    assert site.shown()["metadata"] == {NODE_ID: "on"}


def test_the_service_follows_its_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import http.client
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    monkeypatch.setattr(metadata, "ADDRESS", "127.0.0.1")
    monkeypatch.setattr(metadata, "PORT", port)
    topology = Topology(cell="frt-meta", slot=9)
    metadata.write_facts(topology, {"instance_id": NODE_ID})
    service = metadata.Service(metadata.facts_path(topology, NODE_ID))

    def ask() -> int | str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.3)
        try:
            connection.request("PUT", "/latest/api/token", headers={metadata.TTL_HEADER: "60"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()

    def now(mode: metadata.Mode) -> int | str:
        metadata.switch(topology, NODE_ID, mode)
        service.follow()
        metadata.wait_switched(topology, NODE_ID)
        return ask()

    service.follow()
    assert ask() == 200
    assert now("refused") == "ConnectionRefusedError"
    assert now("throttled") == 503
    assert now("silent") == "TimeoutError"
    assert now("on") == 200
    assert now("refused") == "ConnectionRefusedError"
    wait_for("on again", lambda: now("on") == 200, timeout_s=2)
    assert metadata.switched(topology, NODE_ID) == "on"
    assert service._server is not None
    service._server.end()
