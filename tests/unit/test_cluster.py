"""What crm_mon said in samples recorded from a three-node cluster (Pacemaker 2.1.5), and what we read out of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cell.cluster import ClusterState, parse_cluster
from harness.errors import InfrastructureError

SAMPLES = Path(__file__).parent / "samples" / "crm_mon"
OWNED = ("volume", "filesystem", "pbx", "address")
ALL = ("pbx-1", "pbx-2", "pbx-3")


def state(sample: str, owned: tuple[str, ...] = OWNED) -> ClusterState:
    return parse_cluster((SAMPLES / f"{sample}.xml").read_text(encoding="utf-8"), owned=owned)


@pytest.mark.parametrize(
    ("sample", "online", "active", "unclean"),
    [
        ("formed", ALL, "pbx-2", ()),
        ("monitor-failed", ALL, "pbx-2", ()),
        ("node-unclean", ALL, None, ("pbx-2",)),
        ("fencing-pending", ("pbx-1", "pbx-3"), None, ("pbx-2",)),
        ("pbx-starting", ("pbx-1", "pbx-3"), None, ()),
        ("failed-over", ("pbx-1", "pbx-3"), "pbx-3", ()),
        ("rejoined", ALL, "pbx-3", ()),
    ],
)
def test_who_is_there_and_who_is_active(
    sample: str, online: tuple[str, ...], active: str | None, unclean: tuple[str, ...]
) -> None:
    seen = state(sample)
    assert seen.online == online
    assert seen.active == active
    assert seen.unclean == unclean
    assert seen.dc == "pbx-1"
    assert seen.quorum


def test_fence_devices_are_no_resources() -> None:
    assert [resource.id for resource in state("formed").resources] == ["address", "filesystem", "pbx", "volume"]
    assert {resource.role for resource in state("formed").resources} == {"Started"}


def test_a_resource_that_is_starting_is_not_started() -> None:
    roles = {resource.id: (resource.role, resource.node) for resource in state("pbx-starting").resources}
    assert roles["pbx"] == ("Starting", "pbx-3")
    assert roles["volume"] == ("Started", "pbx-3")


def test_failed_action_names_operation_node_and_reason() -> None:
    assert state("monitor-failed").failed_actions == ("pbx_monitor_1000 on pbx-2: No process state file found",)
    assert state("formed").failed_actions == ()


def test_a_probe_that_finds_nothing_installed_is_told_although_pacemaker_counts_no_failure() -> None:
    seen = state("probe-not-installed")
    assert seen.failed_actions == ()
    assert seen.refused == tuple(("filesystem", f"pbx-{n}", "not installed") for n in (1, 2, 3))
    assert all(not state(sample).refused for sample in ("formed", "failed-over", "rejoined"))
    xml = (SAMPLES / "probe-not-installed.xml").read_text(encoding="utf-8").replace('rc="5"', 'rc="193"')
    assert not parse_cluster(xml, owned=OWNED).refused, "193: the probe is still under way"


def test_fencing_history_with_status() -> None:
    (pending,) = state("fencing-pending").fencing
    assert (pending.target, pending.action, pending.status, pending.completed) == ("pbx-2", "off", "pending", None)
    (done,) = state("failed-over").fencing
    assert (done.target, done.status, done.delegate) == ("pbx-2", "success", "pbx-1")
    assert done.completed is not None


def test_active_needs_every_owned_resource() -> None:
    assert state("formed", owned=(*OWNED, "missing")).active is None
    assert state("formed", owned=()).active is None
    assert state("pbx-starting", owned=("volume", "filesystem")).active == "pbx-3"


def test_a_resource_on_two_nodes_has_no_active_node() -> None:
    xml = (SAMPLES / "formed.xml").read_text(encoding="utf-8")
    node = '<node name="pbx-2" id="2" cached="true"/>'
    split = xml.replace(node, node + '<node name="pbx-3" id="3" cached="true"/>', 1)
    seen = parse_cluster(split, owned=OWNED)
    assert seen.active is None
    assert next(resource for resource in seen.resources if len(resource.where) == 2).id == "volume"


def test_description_says_what_is_wrong() -> None:
    text = state("fencing-pending").describe()
    assert "online: pbx-1, pbx-3" in text
    assert "unclean: pbx-2" in text
    assert "fencing of pbx-2: pending" in text


@pytest.mark.parametrize("text", ["", "Error: cluster is not available on this node"])
def test_no_xml_is_an_error_in_words(text: str) -> None:
    with pytest.raises(InfrastructureError, match="no XML"):
        parse_cluster(text, owned=OWNED)
