"""A cell's description on disk and what is read from it and from the region's journal; nothing is running here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import topology as topologies
from harness.cell.cell import Cell, load, save, volume_device
from harness.cell.node import ContainerNode
from harness.cell.observe import Watched
from harness.cell.policy import load_policy
from harness.cell.profile import load_profile
from harness.cloud import Cloud
from harness.errors import InfrastructureError
from harness.region.credentials import HarnessKey
from harness.topology import Topology


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    topology = Topology(cell="paper", slot=3)
    topology.state_dir.mkdir()
    HarnessKey(access_key_id="A", secret_access_key="s").write(topology.state_dir)
    return Cell(
        topology=topology,
        policy=load_policy("tuned"),
        profile=load_profile("stand-in"),
        nodes=tuple(
            ContainerNode(name=f"pbx-{n}", instance_id=f"i-{n}", private_ip=f"198.18.6.1{n}", container=f"c{n}")
            for n in (1, 2, 3)
        ),
        public_ip="203.0.113.49",
        volume_id="vol-0123",
        allocation_id="eipalloc-1",
        cloud=Cloud(endpoint_url=topology.endpoint_url, access_key_id="A", secret_access_key="s"),
    )


def test_what_is_saved_is_found_again_by_name_alone(cell: Cell) -> None:
    save(cell)
    found = load("paper")
    for field in ("topology", "policy", "profile", "nodes", "public_ip", "volume_id", "allocation_id"):
        assert getattr(found, field) == getattr(cell, field)
    assert found.owned == ("volume", "filesystem", "pbx", "address")


def test_the_description_holds_no_secret_and_all_that_the_observer_needs(cell: Cell) -> None:
    save(cell)
    assert "secret" not in (cell.topology.state_dir / "cell.json").read_text()
    watched = Watched.of_cell(cell.topology.state_dir)
    assert (watched.process, watched.data_dir, watched.public_ip) == ("kamailio", "/srv/pbx", "203.0.113.49")
    assert [node.container for node in watched.nodes] == ["c1", "c2", "c3"]


def test_a_cell_or_node_that_is_not_there_is_named(cell: Cell) -> None:
    with pytest.raises(InfrastructureError, match="cell 'other' is not up"):
        load("other")
    with pytest.raises(InfrastructureError, match="'pbx-9' is no node of the cell; there are: pbx-1, pbx-2, pbx-3"):
        cell.node("pbx-9")
    assert cell.node("pbx-2").instance_id == "i-2"


def test_a_description_of_another_version_says_what_to_do(cell: Cell) -> None:
    path = cell.topology.state_dir / "cell.json"
    for text in ('{"slot": 3}', "{", '{"slot": 3, "policy": {"name": "x"}}'):
        path.write_text(text)
        with pytest.raises(InfrastructureError, match=r"another version .*`pbx-chaos down --cell paper`"):
            load("paper")


def test_the_first_event_of_that_kind_on_that_instance_since_then(cell: Cell) -> None:
    assert cell.region_event("links_cut", instance_id="i-1", since_ns=0) is None
    rows = [
        {"time_ns": 5, "event": "links_cut", "instance_id": "i-1"},
        {"time_ns": 10, "event": "address_mapped"},
        {"time_ns": 15, "event": "links_cut", "instance_id": "i-2"},
        {"time_ns": 20, "event": "links_cut", "instance_id": "i-1"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"time_ns": 30, "event": "links_cut", "inst'
    (cell.topology.state_dir / "region-events.jsonl").write_text(text)
    assert cell.region_event("links_cut", instance_id="i-1", since_ns=0) == 5
    assert cell.region_event("links_cut", instance_id="i-1", since_ns=6) == 20
    assert cell.region_event("links_cut", instance_id="i-3", since_ns=0) is None


def test_a_guest_finds_a_volume_by_its_id() -> None:
    assert volume_device("vol-0123") == "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123"
