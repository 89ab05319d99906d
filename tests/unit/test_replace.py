"""Which parameters of the cluster's configuration name an instance."""

from __future__ import annotations

from pathlib import Path

from harness.cell.cib import cib_xml
from harness.cell.facts import CellFacts, NodeFacts
from harness.cell.policy import load_policy
from harness.cell.replace import Parameter, parameters_that_name

OLD, NEW = "i-00000000000000002", "i-0000000000000000f"


def facts() -> CellFacts:
    nodes = tuple(
        NodeFacts(node_id=n, name=f"pbx-{n}", instance_id=f"i-{n:017x}", addresses=(f"198.18.6.1{n}",))
        for n in (1, 2, 3)
    )
    return CellFacts(
        cluster_name="paper", nodes=nodes, volume_id="vol-1", allocation_id="eipalloc-1", public_ip="203.0.113.49",
        region="us-east-1", zone="us-east-1a",
    )  # fmt: skip


def test_the_fence_devices_host_map_follows() -> None:
    cib = cib_xml(load_policy("tuned"), facts(), pbx_agent="ocf:pbxha:pbx", pbx_params={})
    (found,) = parameters_that_name(cib, OLD, NEW)
    assert found.name == "pcmk_host_map"
    assert found.value == f"pbx-1:i-{1:017x};pbx-2:{NEW};pbx-3:i-{3:017x}"
    assert cib.count(f'id="{found.id}"') == 1


def test_what_users_name_themselves_follows_too_and_the_rest_stays() -> None:
    cib = f"""<cib><configuration><resources>
      <primitive id="vip"><instance_attributes id="a">
        <nvpair id="a-peer" name="peer" value="{OLD}"/><nvpair id="a-ip" name="ip" value="198.18.6.12"/>
      </instance_attributes></primitive></resources></configuration>
      <status><nvpair id="s" name="n" value="{OLD}"/></status></cib>"""
    (found,) = parameters_that_name(cib, OLD, NEW)
    assert found == Parameter(id="a-peer", name="peer", value=NEW)
    assert found.xml == f'<nvpair id="a-peer" name="peer" value="{NEW}" />'


def test_no_policy_names_an_instance_elsewhere() -> None:
    for path in sorted(Path("fixtures/policies").glob("*.toml")):
        cib = cib_xml(load_policy(str(path)), facts(), pbx_agent="ocf:pbxha:pbx", pbx_params={})
        assert {each.name for each in parameters_that_name(cib, OLD, NEW)} <= {"pcmk_host_map"}
