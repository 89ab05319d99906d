"""The VPC's network with real packets and stock agents: secondary addresses, routes, dead neighbours, the API's path.

The nodes reach the EC2 API over the internet only: a and b by a public address of their own, c has none.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

import pytest

from harness.cell.guest import AGENTS_DIR, agent_files
from harness.cell.node import ContainerNode, File
from harness.cloud import Cloud, ElasticIp
from harness.command import Completed, run, wait_for
from harness.images import wanted
from harness.region.books import Books, place_file
from harness.region.process import region_state, start_client, start_region, stop_region
from harness.topology import GATEWAY_PORT, REGION_NAME
from tests.contract import plugin
from tests.contract.promises import REAL_PLANE, RESOURCE_AGENTS, promise
from tests.integration import slots
from tests.integration.data_plane import localstack_image
from tests.integration.namespaces import socket_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TOPOLOGY = slots.own("network")
STOCK, OURS = "/usr/lib/ocf/resource.d/heartbeat", AGENTS_DIR
EIPS = pytest.mark.parametrize("folder", [STOCK, OURS], ids=["stock", "ours"])
VIP = str(TOPOLOGY.vpc_subnet[100])
OVERLAY = "198.19.200.1"
PORT = 5060
SUCCESS, NOT_RUNNING = 0, 7
SILENCE_S = 0.5
ARP_S = 3.5
"""A kernel that gets no ARP answer says "no route to host" after three seconds."""

QUICK_AWS = """#!/bin/sh
exec /usr/local/bin/aws --cli-connect-timeout 2 --cli-read-timeout 10 "$@"
"""
Env = Mapping[str, str]


@dataclass(kw_only=True)
class Site:
    cloud: Cloud
    ec2: Any
    nodes: dict[str, ContainerNode]
    address: ElasticIp
    client: int

    def agent(self, name: str, agent: str, action: str, env: Env = MappingProxyType({})) -> Completed:
        """A resource agent as Pacemaker starts it."""
        given = {
            "OCF_ROOT": "/usr/lib/ocf",
            "OCF_RESOURCE_INSTANCE": "address",
            "OCF_RESKEY_CRM_meta_timeout": "5000",
            "OCF_RESKEY_awscli": "/usr/local/bin/quick-aws",
            "OCF_RESKEY_api_delay": "0",
            "OCF_RESKEY_elastic_ip": self.address.public_ip,
            "OCF_RESKEY_allocation_id": self.address.allocation_id,
            "AWS_MAX_ATTEMPTS": "1",
            **env,
        }
        shell = 'set -a; . /etc/pbx-node/env; set +a; exec env "$@"'
        argv = ["sh", "-c", shell, "sh", *(f"{k}={v}" for k, v in given.items()), agent, action]
        return self.nodes[name].run(argv, timeout_s=40, check=False)

    def pid(self, name: str) -> int:
        return int(region_state(TOPOLOGY)["instances"][self.nodes[name].instance_id]["pid"])

    def owner(self) -> str | None:
        private = region_state(TOPOLOGY)["addresses"].get(self.address.public_ip)
        return next((name for name, node in self.nodes.items() if node.private_ip == private), private)

    def described(self, name: str) -> Any:
        found = self.ec2.describe_instances(InstanceIds=[self.nodes[name].instance_id])
        return found["Reservations"][0]["Instances"][0]

    def interface(self, name: str) -> str:
        return str(self.described(name)["NetworkInterfaces"][0]["NetworkInterfaceId"])

    def shell(self, name: str, script: str, *, check: bool = True) -> Completed:
        return self.nodes[name].run(["sh", "-c", script], timeout_s=20, check=check)


@pytest.fixture(scope="module", params=["moto", pytest.param("localstack", marks=pytest.mark.soak)])
def region(request: pytest.FixtureRequest) -> Iterator[Site]:
    books = localstack_image() if request.param == "localstack" else None
    stop_region(TOPOLOGY)
    try:
        image = wanted().node
        made = start_region(TOPOLOGY, node_image_names=[image], localstack_image=books, api="public")
        plugin.note(request.config, Books.read(place_file(TOPOLOGY)))
        key = {"access_key_id": made.key.access_key_id, "secret_access_key": made.key.secret_access_key}
        cloud = Cloud(endpoint_url=made.endpoint_url, **key)
        place: Any = {"image": image, "subnet_id": cloud.create_network(TOPOLOGY.vpc_subnet), "timeout_s": 60}
        ips = {name: str(TOPOLOGY.node_address(i)) for i, name in enumerate("abc", 1)}
        ids = cloud.run_instances({n: ips[n] for n in "ab"}, own_public_addresses=True, **place)
        ids |= cloud.run_instances({"c": ips["c"]}, **place)
        nodes = {
            n: ContainerNode(name=n, instance_id=ids[n], private_ip=ips[n], container=f"{TOPOLOGY.cell}-{n}")
            for n in ids
        }
        config = f"[default]\nregion = {REGION_NAME}\noutput = json\nendpoint_url = {made.guest_endpoint_url}\n"
        env = "AWS_CONFIG_FILE=/etc/pbx-node/aws-config\nPYTHONPATH=/opt/aws/lib/python3.11/site-packages\nHOME=/root\n"
        files = {
            "/etc/pbx-node/aws-config": File(content=config.encode()),
            "/etc/pbx-node/env": File(content=f"{env}AWS_DEFAULT_REGION={REGION_NAME}\n".encode()),
            "/usr/local/bin/quick-aws": File(content=QUICK_AWS.encode(), mode=0o755),
        }
        for node in nodes.values():
            node.put(agent_files() | files)
        client = start_client(TOPOLOGY, 1)
        yield Site(cloud=cloud, ec2=cloud._ec2, nodes=nodes, address=cloud.allocate_address(), client=client)
    finally:
        stop_region(TOPOLOGY)
    route = ["ip", "route", "show", str(TOPOLOGY.elastic_range)]
    assert run(route, timeout_s=5).stdout == "", "the host's route to the public addresses went with the bridge"


@pytest.fixture
def site(region: Site) -> Site:
    """All nodes on, no secondary address anywhere, the Elastic IP with nobody, a and b with addresses of their own."""
    for node in region.nodes.values():
        region.cloud.ensure_started(node.instance_id, timeout_s=60)
    region.cloud.disassociate(region.address.allocation_id)
    for name in region.nodes:
        rows = region.described(name)["NetworkInterfaces"][0]["PrivateIpAddresses"]
        extra = [row["PrivateIpAddress"] for row in rows if not row["Primary"]]
        if extra:
            nic = region.interface(name)
            region.ec2.unassign_private_ip_addresses(NetworkInterfaceId=nic, PrivateIpAddresses=extra)
        region.shell(name, f"ip addr del {VIP}/32 dev eth0; ip addr del {OVERLAY}/32 dev eth0", check=False)
    for name in "ab":
        wait_for("an address of its own", lambda n=name: "PublicIpAddress" in region.described(n), timeout_s=5)  # type: ignore[misc]
    return region


def silent(sock: socket.socket, *, for_s: float = SILENCE_S) -> None:
    sock.settimeout(for_s)
    with pytest.raises(TimeoutError):
        sock.recv(2048)


@EIPS
def test_a_node_without_a_public_address_can_not_claim_one_and_says_so(site: Site, folder: str) -> None:
    claimed = site.agent("c", f"{folder}/awseip", "start")
    assert claimed.code not in (SUCCESS, None)
    said = (claimed.stderr + claimed.stdout).lower()
    assert "timeout on endpoint" in said or "timed out" in said, said
    assert site.owner() is None


@EIPS
def test_a_node_takes_the_address_by_one_of_its_own_and_goes_on_with_it(site: Site, folder: str) -> None:
    own = site.described("a")["PublicIpAddress"]
    agent = f"{folder}/awseip"
    claimed = site.agent("a", agent, "start")
    assert claimed.code == SUCCESS, claimed.stderr
    wait_for("the move", lambda: site.owner() == "a", timeout_s=2)
    assert site.described("a")["PublicIpAddress"] == site.address.public_ip
    assert IPv4Address(own) not in [IPv4Address(public) for public in region_state(TOPOLOGY)["addresses"]]
    assert site.agent("a", agent, "monitor").code == SUCCESS
    stopped = site.agent("a", agent, "stop")
    assert stopped.code == SUCCESS, stopped.stderr
    wait_for("another address of its own", lambda: "PublicIpAddress" in site.described("a"), timeout_s=5)


def test_after_the_move_the_losers_connection_to_the_api_is_dead(site: Site) -> None:
    site.cloud.associate(site.address.allocation_id, site.nodes["c"].instance_id)
    to = (str(TOPOLOGY.public_endpoint_address), GATEWAY_PORT)
    request = b"GET /_region/health HTTP/1.1\r\nHost: api\r\n\r\n"
    with socket_in(site.pid("c"), socket.SOCK_STREAM) as connection:
        connection.connect(to)
        connection.send(request)
        assert b"200 OK" in connection.recv(4096)
        assert site.agent("b", f"{STOCK}/awseip", "start").code == SUCCESS
        wait_for("the move", lambda: site.owner() == "b", timeout_s=2)
        connection.send(request)
        silent(connection)
    assert site.agent("c", f"{OURS}/awseip", "start").code == 1
    assert site.owner() == "b"


def test_a_private_address_gets_no_answer_from_the_api(site: Site) -> None:
    answer = site.shell("a", f"curl -s -m 3 {TOPOLOGY.endpoint_url}/_region/health", check=False)
    assert answer.code in (52, 56) and answer.stdout == "", "closed, empty"
    answer = site.shell("a", f"curl -s -m 3 {TOPOLOGY.public_endpoint_url}/_region/health")
    assert "ok" in answer.stdout


def test_systems_manager_reaches_only_nodes_that_reach_the_api(site: Site) -> None:
    rows = site.cloud._ssm.describe_instance_information()["InstanceInformationList"]
    seen = {row["InstanceId"]: row["PingStatus"] for row in rows}
    status = {name: seen[node.instance_id] for name, node in site.nodes.items()}
    assert status == {"a": "Online", "b": "Online", "c": "ConnectionLost"}


@promise(
    "awsvip",
    "start moves a secondary private address, metadata and packets follow, monitor tells its owner",
    source=f"{RESOURCE_AGENTS}awsvip",
    local_only=REAL_PLANE,
)
def test_stock_awsvip_moves_a_secondary_address_and_packets_follow(site: Site) -> None:
    env = {"OCF_RESKEY_secondary_private_ip": VIP}
    agent = f"{STOCK}/awsvip"
    assert site.agent("a", agent, "validate-all", env).code == SUCCESS
    assert site.agent("a", agent, "monitor", env).code == NOT_RUNNING
    for name, other in (("a", "b"), ("b", "a")):
        started = site.agent(name, agent, "start", env)
        assert started.code == SUCCESS, started.stderr
        assert site.agent(name, agent, "monitor", env).code == SUCCESS
        assert site.agent(other, agent, "monitor", env).code == NOT_RUNNING
        site.shell(name, f"ip addr add {VIP}/32 dev eth0")
        asker = socket_in(site.pid("c"))
        with socket_in(site.pid(name), bind=(VIP, PORT)) as server:
            asker.sendto(b"who?", (VIP, PORT))
            assert server.recvfrom(2048)[0] == b"who?"
    token = "$(curl -sX PUT http://169.254.169.254/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 60')"
    macs = "http://169.254.169.254/latest/meta-data/network/interfaces/macs/$(cat /sys/class/net/eth0/address)"
    told = site.shell("b", f'curl -s {macs}/local-ipv4s -H "X-aws-ec2-metadata-token: {token}"').stdout
    assert told.split() == [site.nodes["b"].private_ip, VIP]
    assert site.agent("b", agent, "stop", env).code == SUCCESS
    assert site.agent("b", agent, "monitor", env).code == NOT_RUNNING


def test_a_secondary_address_that_its_owner_has_not_configured_is_silent(site: Site) -> None:
    site.ec2.assign_private_ip_addresses(NetworkInterfaceId=site.interface("b"), PrivateIpAddresses=[VIP])
    with socket_in(site.pid("a")) as asker:
        asker.connect((VIP, PORT))
        asker.send(b"anyone?")
        silent(asker)
        asker.send(b"anyone?")
        silent(asker)
    told = site.ec2.describe_network_interfaces(NetworkInterfaceIds=[site.interface("b")])["NetworkInterfaces"][0]
    assert VIP in [row["PrivateIpAddress"] for row in told["PrivateIpAddresses"]], "it is b's all the time"


def test_only_the_owner_of_a_private_address_can_send_from_it(site: Site) -> None:
    nic = site.interface("b")
    site.ec2.assign_private_ip_addresses(NetworkInterfaceId=nic, PrivateIpAddresses=[VIP])
    site.ec2.associate_address(AllocationId=site.address.allocation_id, NetworkInterfaceId=nic, PrivateIpAddress=VIP)
    client = socket_in(site.client, bind=("0.0.0.0", PORT))
    to = (str(TOPOLOGY.client_address(1)), PORT)
    for name in "ab":
        site.shell(name, f"ip addr add {VIP}/32 dev eth0")
    with socket_in(site.pid("a"), bind=(VIP, PORT)) as forger, socket_in(site.pid("b"), bind=(VIP, PORT)) as owner:
        forger.sendto(b"forged", to)
        silent(client)
        owner.sendto(b"mine", to)
        assert client.recvfrom(2048) == (b"mine", (site.address.public_ip, PORT))
    client.close()


def test_a_neighbour_that_is_off_is_silent(site: Site) -> None:
    site.cloud.stop(site.nodes["c"].instance_id, power_off=True)
    site.cloud.wait_state(site.nodes["c"].instance_id, "stopped", timeout_s=20)
    with socket_in(site.pid("a")) as asker:
        asker.connect((site.nodes["c"].private_ip, PORT))
        asker.send(b"anyone?")
        silent(asker, for_s=ARP_S)
    site.cloud.ensure_started(site.nodes["c"].instance_id, timeout_s=20)
    with socket_in(site.pid("c")) as asker, socket_in(site.pid("a"), bind=("0.0.0.0", PORT)) as server:
        asker.sendto(b"back", (site.nodes["a"].private_ip, PORT))
        data, peer = server.recvfrom(2048)
        server.sendto(data, peer)
        assert asker.recv(2048) == b"back"


@promise(
    "aws-vpc-move-ip",
    "start moves an overlay address by its route, packets follow, monitor tells its owner",
    source=f"{RESOURCE_AGENTS}aws-vpc-move-ip",
    local_only=REAL_PLANE,
)
@pytest.mark.soak
def test_stock_aws_vpc_move_ip_moves_an_overlay_address(site: Site) -> None:
    vpc = site.described("a")["VpcId"]
    main = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
    table = site.ec2.describe_route_tables(Filters=main)["RouteTables"][0]["RouteTableId"]
    for name in "ab":
        site.ec2.modify_instance_attribute(InstanceId=site.nodes[name].instance_id, SourceDestCheck={"Value": False})
    nic = site.interface("b")
    site.ec2.create_route(RouteTableId=table, DestinationCidrBlock=f"{OVERLAY}/32", NetworkInterfaceId=nic)
    env = {"OCF_RESKEY_ip": OVERLAY, "OCF_RESKEY_routing_table": table, "OCF_RESKEY_interface": "eth0"}
    agent = f"{STOCK}/aws-vpc-move-ip"
    for name in "ab":
        assert site.agent(name, agent, "monitor", env).code == NOT_RUNNING
        started = site.agent(name, agent, "start", env)
        assert started.code == SUCCESS, started.stderr
        assert site.agent(name, agent, "monitor", env).code == SUCCESS
        with socket_in(site.pid("c")) as asker, socket_in(site.pid(name), bind=(OVERLAY, PORT)) as server:
            asker.sendto(b"who?", (OVERLAY, PORT))
            data, peer = server.recvfrom(2048)
            assert peer[0] == site.nodes["c"].private_ip
            server.sendto(data, peer)
            assert asker.recvfrom(2048) == (b"who?", (OVERLAY, PORT))
    assert site.agent("b", agent, "stop", env).code == SUCCESS
    site.ec2.delete_route(RouteTableId=table, DestinationCidrBlock=f"{OVERLAY}/32")
