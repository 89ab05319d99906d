"""The CIB as Pacemaker gets it. That Pacemaker accepts it is tested with the real one (integration)."""

from __future__ import annotations

from dataclasses import replace
from xml.etree.ElementTree import Element, fromstring

import pytest

from harness.cell.cib import cib_xml, seconds
from harness.cell.policy import load_policy, parse_policy
from tests.unit.cells import facts


def cib(policy: str) -> Element:
    return fromstring(cib_xml(load_policy(policy), facts(), pbx_agent="ocf:pbxha:pbx", pbx_params={"profile": "x"}))


def pairs(root: Element, path: str) -> dict[str, str]:
    found = root.findall(f"{path}/nvpair")
    return {str(pair.get("name")): str(pair.get("value")) for pair in found}


def test_ids_are_unique() -> None:
    for policy in ("default", "tuned"):
        ids = [element.get("id") for element in cib(policy).iter() if element.get("id")]
        ids = [i for i in ids if i not in ("1", "2", "3")]
        assert len(ids) == len(set(ids))


def test_serial_order_is_one_group_in_the_order_of_the_file() -> None:
    root = cib("default")
    assert [p.get("id") for p in root.findall(".//group/primitive")] == ["volume", "filesystem", "pbx", "address"]
    assert root.find(".//rsc_order") is None


def test_parallel_address_waits_for_the_file_system_beside_the_pbx() -> None:
    root = cib("tuned")
    assert [p.get("id") for p in root.findall(".//group/primitive")] == ["volume", "filesystem", "pbx"]
    order, together = root.find(".//rsc_order"), root.find(".//rsc_colocation")
    assert order is not None
    assert (order.get("first"), order.get("then")) == ("filesystem", "address")
    assert together is not None
    assert (together.get("rsc"), together.get("with-rsc"), together.get("score")) == (
        "address", "filesystem", "INFINITY",
    )  # fmt: skip


def test_the_fence_device_knows_which_node_is_which_instance() -> None:
    params = pairs(cib("tuned"), ".//primitive[@id='fencing']/instance_attributes")
    assert params["pcmk_host_map"].startswith("pbx-1:i-00000000000000001;pbx-2:")
    assert params["region"] == "us-east-1"


def test_the_pbx_gets_agent_and_params_from_the_profile() -> None:
    pbx = cib("tuned").find(".//primitive[@id='pbx']")
    assert pbx is not None
    assert (pbx.get("class"), pbx.get("provider"), pbx.get("type")) == ("ocf", "pbxha", "pbx")
    assert pairs(pbx, "instance_attributes") == {"profile": "x"}


def test_facts_are_filled_in() -> None:
    assert pairs(cib("tuned"), ".//primitive[@id='volume']/instance_attributes")["volume_id"].startswith("vol-")
    assert pairs(cib("tuned"), ".//primitive[@id='address']/instance_attributes")["elastic_ip"] == "203.0.113.1"


def test_fencing_off_has_no_device_and_says_so() -> None:
    text = 'name = "off"\nsummary = ""\n[fencing]\nenabled = false\n[[resource]]\nid = "pbx"\nrole = "pbx"\n'
    root = fromstring(cib_xml(parse_policy(text, source="off"), facts(), pbx_agent="ocf:pbxha:pbx", pbx_params={}))
    assert root.find(".//primitive[@class='stonith']") is None
    assert pairs(root, ".//cluster_property_set")["stonith-enabled"] == "false"


def test_nodes_that_are_containers_do_not_slow_down_for_the_load_of_their_neighbours() -> None:
    policy = load_policy("default")
    for containers, expected in ((True, "0%"), (False, None)):
        text = cib_xml(policy, facts(containers=containers), pbx_agent="ocf:pbxha:pbx", pbx_params={})
        assert pairs(fromstring(text), ".//cluster_property_set").get("load-threshold") == expected
    own = replace(policy, properties={"load-threshold": "60%"})
    text = cib_xml(own, facts(), pbx_agent="ocf:pbxha:pbx", pbx_params={})
    assert pairs(fromstring(text), ".//cluster_property_set")["load-threshold"] == "60%"


def test_the_feature_set_is_not_newer_than_the_cluster() -> None:
    assert cib("tuned").get("crm_feature_set") == "3.16.1"


@pytest.mark.parametrize(("value_s", "text"), [(0, "0"), (1, "1s"), (90.0, "90s"), (0.5, "500ms"), (1.25, "1250ms")])
def test_durations_as_pacemaker_reads_them(value_s: float, text: str) -> None:
    assert seconds(value_s) == text
