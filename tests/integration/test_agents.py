"""Address and fence agents against the region on real parts: the stock ones and ours keep the same contract.

Two nodes; what an agent claims is compared with the data plane (router table, power), not with its own answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from harness.cell.guest import AGENTS_DIR, agent_files
from harness.cell.node import ContainerNode, File
from harness.cloud import Cloud, ElasticIp
from harness.command import Completed
from harness.images import wanted
from harness.region.books import Books, place_file
from harness.region.process import region_state, start_region, stop_region
from harness.topology import REGION_NAME
from tests.contract import plugin
from tests.contract.promises import FENCE_AWS, REAL_PLANE, RESOURCE_AGENTS, promise
from tests.integration import slots
from tests.integration.data_plane import localstack_image

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TOPOLOGY = slots.own("agents")
STOCK_EIP, OUR_EIP = "/usr/lib/ocf/resource.d/heartbeat/awseip", f"{AGENTS_DIR}/awseip"
STOCK_FENCE, OUR_FENCE = "fence_aws", "fence_pbxha_aws"
NOWHERE = "http://198.18.255.254:1"
SUCCESS, NOT_RUNNING = 0, 7
Env = Mapping[str, str]
EIPS = pytest.mark.parametrize("agent", [STOCK_EIP, OUR_EIP], ids=["stock", "ours"])
FENCES = pytest.mark.parametrize("agent", [STOCK_FENCE, OUR_FENCE], ids=["stock", "ours"])


@dataclass(kw_only=True)
class Site:
    """Two nodes, a and b, and an Elastic IP."""

    cloud: Cloud
    nodes: dict[str, ContainerNode]
    address: ElasticIp

    def run(self, name: str, *argv: str, stdin: str | None = None, env: Env = MappingProxyType({})) -> Completed:
        """A command as Pacemaker starts agents: with the environment of the node's boot script."""
        shell = 'set -a; . /etc/pbx-node/env; set +a; exec env "$@"'
        variables = [f"{key}={value}" for key, value in env.items()]
        return self.nodes[name].run(
            ["sh", "-c", shell, "sh", *variables, *argv], timeout_s=40, stdin=stdin, check=False
        )

    def eip(
        self, name: str, agent: str, action: str, *, probe: bool = False, env: Env = MappingProxyType({})
    ) -> Completed:
        given = {
            "OCF_ROOT": "/usr/lib/ocf",
            "OCF_RESOURCE_INSTANCE": "address",
            "OCF_RESKEY_CRM_meta_interval": "0" if probe else "60000",
            "OCF_RESKEY_awscli": "/usr/local/bin/aws",
            "OCF_RESKEY_api_delay": "0",
            "OCF_RESKEY_elastic_ip": self.address.public_ip,
            "OCF_RESKEY_allocation_id": self.address.allocation_id,
        }
        return self.run(name, agent, action, env={**given, **env})

    def owner(self) -> str | None:
        """Whom the router sends the address to."""
        private = region_state(TOPOLOGY)["addresses"].get(self.address.public_ip)
        return next((name for name, node in self.nodes.items() if node.private_ip == private), private)

    def power(self, name: str) -> str:
        return str(region_state(TOPOLOGY)["instances"][self.nodes[name].instance_id]["power"])

    def calls(self, who: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (TOPOLOGY.state_dir / "cloud-calls.jsonl").read_text().splitlines()]
        return [row for row in rows if row["who"] == who]


@pytest.fixture(scope="module", params=["moto", pytest.param("localstack", marks=pytest.mark.soak)])
def region(request: pytest.FixtureRequest) -> Iterator[Site]:
    books = localstack_image() if request.param == "localstack" else None
    stop_region(TOPOLOGY)
    try:
        image = wanted().node
        key = start_region(TOPOLOGY, node_image_names=[image], localstack_image=books).key
        plugin.note(request.config, Books.read(place_file(TOPOLOGY)))
        cloud = Cloud(
            endpoint_url=TOPOLOGY.endpoint_url,
            access_key_id=key.access_key_id,
            secret_access_key=key.secret_access_key,
        )
        subnet = cloud.create_network(TOPOLOGY.vpc_subnet)
        ips = {name: str(TOPOLOGY.node_address(i)) for i, name in enumerate("ab", 1)}
        ids = cloud.run_instances(ips, image=image, subnet_id=subnet, timeout_s=60)
        nodes = {
            name: ContainerNode(
                name=name, instance_id=ids[name], private_ip=ips[name], container=f"{TOPOLOGY.cell}-{name}"
            )
            for name in ids
        }
        config = f"[default]\nregion = {REGION_NAME}\noutput = json\nendpoint_url = {TOPOLOGY.endpoint_url}\n"
        env = "AWS_CONFIG_FILE=/etc/pbx-node/aws-config\nPYTHONPATH=/opt/aws/lib/python3.11/site-packages\nHOME=/root\n"
        settings = {"/etc/pbx-node/aws-config": config, "/etc/pbx-node/env": f"{env}AWS_DEFAULT_REGION={REGION_NAME}\n"}
        for node in nodes.values():
            node.put(agent_files() | {path: File(content=text.encode()) for path, text in settings.items()})
        yield Site(cloud=cloud, nodes=nodes, address=cloud.allocate_address())
    finally:
        stop_region(TOPOLOGY)


@pytest.fixture
def site(region: Site) -> Site:
    """Both nodes on, the address with nobody."""
    for node in region.nodes.values():
        region.cloud.ensure_started(node.instance_id, timeout_s=60)
    region.cloud.disassociate(region.address.allocation_id)
    return region


@promise(
    "awseip",
    "start takes the address from whoever has it, monitor tells its owner, a late stop takes nothing",
    source=f"{RESOURCE_AGENTS}awseip",
    local_only=REAL_PLANE,
)
@EIPS
def test_an_address_follows_the_resource(site: Site, agent: str) -> None:
    assert site.eip("a", agent, "validate-all").code == SUCCESS
    assert site.eip("a", agent, "monitor", probe=True).code == NOT_RUNNING
    assert site.eip("a", agent, "start").code == SUCCESS
    assert site.owner() == "a"
    assert site.eip("a", agent, "monitor").code == SUCCESS
    assert site.eip("b", agent, "monitor", probe=True).code == NOT_RUNNING
    assert site.eip("b", agent, "start").code == SUCCESS, "taken from a node that still has it"
    assert site.owner() == "b"
    assert site.eip("a", agent, "monitor").code == NOT_RUNNING
    assert site.eip("a", agent, "stop").code == SUCCESS
    assert site.owner() == "b", "a stop that comes late takes nothing from the next owner"
    assert site.eip("b", agent, "stop").code == SUCCESS
    assert site.owner() is None
    assert site.eip("b", agent, "stop").code == SUCCESS


@promise(
    "awseip",
    "start and monitor with private_ip_address: the address is at that private address",
    source=f"{RESOURCE_AGENTS}awseip",
    local_only=REAL_PLANE,
)
@EIPS
def test_an_address_at_a_private_address_of_the_node(site: Site, agent: str) -> None:
    private = {"OCF_RESKEY_private_ip_address": site.nodes["a"].private_ip}
    assert site.eip("a", agent, "start", env=private).code == SUCCESS
    assert site.owner() == "a"
    assert site.eip("a", agent, "monitor", env=private).code == SUCCESS


def test_our_agents_start_is_one_call_and_its_monitor_none(site: Site) -> None:
    before = len(site.calls("a"))
    started = site.eip("a", OUR_EIP, "start")
    assert started.code == SUCCESS, started.stderr
    assert [call["action"] for call in site.calls("a")[before:]] == ["AssociateAddress"]
    assert site.eip("a", OUR_EIP, "monitor").code == SUCCESS
    assert len(site.calls("a")) == before + 1


def test_our_agent_knows_an_unreachable_api_from_an_address_that_is_not_here(site: Site) -> None:
    away = {"AWS_ENDPOINT_URL": NOWHERE, "OCF_RESKEY_CRM_meta_timeout": "2000"}
    assert site.eip("a", OUR_EIP, "start").code == SUCCESS
    assert site.eip("a", OUR_EIP, "monitor", env=away).code == SUCCESS
    assert site.eip("a", OUR_EIP, "monitor", probe=True, env=away).code == SUCCESS
    assert site.eip("b", OUR_EIP, "monitor", probe=True, env=away).code == NOT_RUNNING
    started = site.eip("b", OUR_EIP, "start", env=away)
    assert started.code == 1 and "ocf-exit-reason:" in started.stderr
    assert started.took_s < 8
    stopped = site.eip("a", OUR_EIP, "stop", env=away)
    assert stopped.code == SUCCESS and site.owner() == "a", "the next start takes it"


@promise(
    "fence_aws",
    "off is a success only with the power off, on with it on, status tells which",
    source=FENCE_AWS,
    local_only=REAL_PLANE,
)
@FENCES
def test_off_is_success_only_with_the_power_off(site: Site, agent: str) -> None:
    target = site.nodes["b"].instance_id
    fenced = site.run("a", agent, stdin=f"action=off\nport={target}\nregion={REGION_NAME}\nnodename=b\n")
    assert (fenced.code, site.power("b")) == (0, "off"), fenced.stderr
    assert site.cloud.instance_state(target) == "stopped"
    again = site.run("a", agent, "-o", "off", "-n", target, "-r", REGION_NAME)
    assert again.code == 0, "a node that is off already"
    assert site.run("a", agent, "-o", "status", "-n", target, "-r", REGION_NAME).code == 2
    assert site.run("a", agent, "-o", "on", "-n", target, "-r", REGION_NAME).code == 0
    assert site.power("b") == "on"
    assert site.run("a", agent, "-o", "status", "-n", target, "-r", REGION_NAME).code == 0


@promise(
    "fence_aws",
    "list names the instances of the account, monitor succeeds, metadata has the actions",
    source=FENCE_AWS,
    local_only=REAL_PLANE,
)
@FENCES
def test_a_fence_device_lists_and_monitors(site: Site, agent: str) -> None:
    listed = site.run("a", agent, "-o", "list", "-r", REGION_NAME).stdout
    assert {line.split(",")[0] for line in listed.splitlines()} == {n.instance_id for n in site.nodes.values()}
    assert site.run("a", agent, "-o", "monitor", "-r", REGION_NAME).code == 0
    actions = fromstring(site.run("a", agent, "-o", "metadata").stdout).findall("actions/action")
    assert {"off", "reboot", "monitor", "status"} <= {action.get("name") for action in actions}


def test_our_fence_agent_cuts_the_power_of_a_guest_that_does_not_shut_down(site: Site) -> None:
    site.nodes["b"].run(["sh", "-c", "printf '#!/bin/sh\\nsleep 60\\n' >/etc/pbx-node/halt"], timeout_s=5)
    site.nodes["b"].run(["chmod", "755", "/etc/pbx-node/halt"], timeout_s=5)
    try:
        fenced = site.run("a", OUR_FENCE, "-o", "reboot", "-n", site.nodes["b"].instance_id)
        assert fenced.code == 0 and fenced.took_s < 20, fenced.stderr
        stop = next(call for call in reversed(site.calls("a")) if call["action"] == "StopInstances")
        assert stop["params"]["SkipOsShutdown"] == "true"
        site.cloud.wait_state(site.nodes["b"].instance_id, "running", timeout_s=20)
    finally:
        site.cloud.ensure_started(site.nodes["b"].instance_id, timeout_s=20)
        site.nodes["b"].run(["rm", "-f", "/etc/pbx-node/halt"], timeout_s=5)


def test_our_fence_agent_fails_when_ec2_can_not_be_asked(site: Site) -> None:
    options = f"action=off\nplug={site.nodes['b'].instance_id}\npower_timeout=1\n"
    fenced = site.run("a", OUR_FENCE, stdin=options, env={"AWS_ENDPOINT_URL": NOWHERE})
    assert fenced.code == 1 and "not in time; last seen" in fenced.stderr
    assert site.power("b") == "on"
    unknown = site.run("a", OUR_FENCE, "-o", "off", "-n", "i-0123456789abcdef0")
    assert unknown.code == 1 and "InvalidInstanceID.NotFound" in unknown.stderr
