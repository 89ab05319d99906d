"""Security groups and network ACLs with real packets: two nodes, a client, and the API in front of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from harness.cloud import Cloud
from harness.command import run, wait_for
from harness.images import wanted
from harness.region.process import region_state, start_client, start_region, stop_region
from tests.integration import slots
from tests.integration.namespaces import socket_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TOPOLOGY = slots.own("filter")
SILENCE_S = 0.4
EVERYBODY, INTERNET = "0.0.0.0/0", str(TOPOLOGY.internet_subnet)
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
BOOT = """#!/bin/sh
setsid python3 -c '
import socket, threading
def echo(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", port))
    while True: s.sendto(*s.recvfrom(99))
for port in (7001, 7002): threading.Thread(target=echo, args=(port,)).start()
' </dev/null >/dev/null 2>&1 &
"""
Address = tuple[str, int]


@dataclass(kw_only=True)
class Site:
    cloud: Cloud
    ec2: Any
    ids: dict[str, str]
    client: int
    public: str
    vpc_id: str
    open_group: str
    acl: str
    group: str = ""

    def ip(self, name: str) -> str:
        return str(TOPOLOGY.node_address("ab".index(name) + 1))

    def pid(self, name: str) -> int:
        """Host pid behind a node, or the client."""
        if name == "client":
            return self.client
        return int(region_state(TOPOLOGY)["instances"][self.ids[name]]["pid"])

    def allow(self, protocol: str, port: int, *, block: str | None = None, group: str | None = None) -> None:
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=rule(protocol, port, block, group))

    def revoke(self, protocol: str, port: int, *, block: str | None = None, group: str | None = None) -> None:
        self.ec2.revoke_security_group_ingress(GroupId=self.group, IpPermissions=rule(protocol, port, block, group))

    def put(self, name: str, *groups: str) -> None:
        self.ec2.modify_instance_attribute(InstanceId=self.ids[name], Groups=list(groups))

    @contextmanager
    def server(self, name: str, port: int, kind: int = UDP) -> Iterator[None]:
        """Answers with what it is sent."""
        sock, over = socket_in(self.pid(name), kind, bind=("0.0.0.0", port)), threading.Event()
        serve: Callable[[socket.socket, threading.Event], None] = _datagrams if kind == UDP else _connections
        thread = threading.Thread(target=serve, args=(sock, over), daemon=True)
        sock.settimeout(0.05)
        if kind == TCP:
            sock.listen()
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            sock.close()

    def peer(self, name: str, to: Address, kind: int = UDP) -> socket.socket:
        """A socket of a machine that talks with `to`; TCP: connected."""
        sock = socket_in(self.pid(name), kind)
        sock.settimeout(SILENCE_S)
        try:
            sock.connect(to)
        except OSError:
            sock.close()
            raise
        return sock

    def hears(self, name: str, to: Address, kind: int = UDP) -> bool:
        """Whether a new flow from a machine is answered; refusals count as failures of the test."""
        try:
            with self.peer(name, to, kind) as sock:
                return answered(sock)
        except TimeoutError:
            return False


def rule(protocol: str, port: int, block: str | None, group: str | None) -> list[dict[str, Any]]:
    pairs = {"UserIdGroupPairs": [{"GroupId": group}]} if group else {"IpRanges": [{"CidrIp": block}]}
    return [{"IpProtocol": protocol, "FromPort": port, "ToPort": port, **pairs}]


def answered(sock: socket.socket) -> bool:
    """Whether what is sent now comes back."""
    sock.send(b"?")
    try:
        return sock.recv(9) == b"?"
    except TimeoutError:
        return False


def _datagrams(sock: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(TimeoutError):
            sock.sendto(*sock.recvfrom(99))


def _connections(sock: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(TimeoutError):
            threading.Thread(target=_connection, args=(sock.accept()[0], over), daemon=True).start()


def _connection(sock: socket.socket, over: threading.Event) -> None:
    sock.settimeout(0.05)
    with sock, suppress(ConnectionError):
        while not over.is_set():
            with suppress(TimeoutError):
                sock.sendall(sock.recv(99))


@pytest.fixture(scope="module")
def region() -> Iterator[Site]:
    stop_region(TOPOLOGY)
    try:
        image = wanted().node
        made = start_region(TOPOLOGY, node_image_names=[image])
        key = {"access_key_id": made.key.access_key_id, "secret_access_key": made.key.secret_access_key}
        cloud = Cloud(endpoint_url=made.endpoint_url, **key)
        subnet = cloud.create_network(TOPOLOGY.vpc_subnet)
        ips = {"a": str(TOPOLOGY.node_address(1)), "b": str(TOPOLOGY.node_address(2))}
        ids = cloud.run_instances(ips, image=image, subnet_id=subnet, timeout_s=60)
        address = cloud.allocate_address()
        cloud.associate(address.allocation_id, ids["a"])
        boot = ["docker", "exec", "-i", f"{TOPOLOGY.cell}-a", "sh", "-c"]
        script = "mkdir -p /etc/pbx-node; cat >/etc/pbx-node/boot; chmod 755 /etc/pbx-node/boot"
        run([*boot, script], timeout_s=10, input=BOOT)
        ec2 = cloud._ec2
        seen = ec2.describe_instances(InstanceIds=[ids["a"]])["Reservations"][0]["Instances"][0]
        filters: Any = [{"Name": "association.subnet-id", "Values": [subnet]}]
        yield Site(
            cloud=cloud,
            ec2=ec2,
            ids=ids,
            client=start_client(TOPOLOGY, 1),
            public=address.public_ip,
            vpc_id=seen["VpcId"],
            open_group=seen["SecurityGroups"][0]["GroupId"],
            acl=ec2.describe_network_acls(Filters=filters)["NetworkAcls"][0]["NetworkAclId"],
        )
    finally:
        stop_region(TOPOLOGY)


@pytest.fixture
def site(region: Site, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Both nodes on, a in a new group without a rule for what comes in, b in the one that filters nothing."""
    for instance_id in region.ids.values():
        region.cloud.ensure_started(instance_id, timeout_s=60)
    made = region.ec2.create_security_group(GroupName=request.node.name, Description="test", VpcId=region.vpc_id)
    region.group = made["GroupId"]
    region.put("a", region.group)
    yield region
    for name in region.ids:
        region.put(name, region.open_group)


def test_what_no_rule_lets_in_is_dropped_in_silence(site: Site) -> None:
    site.allow("udp", 7003, block=INTERNET)
    site.allow("tcp", 7005, block=INTERNET)
    with site.server("a", 7003), site.server("a", 7004), site.server("a", 7005, TCP), site.server("a", 7006, TCP):
        assert site.hears("client", (site.public, 7003))
        assert site.hears("client", (site.public, 7005), TCP)
        for port, kind in ((7004, UDP), (7006, TCP)):
            assert not site.hears("client", (site.public, port), kind)
        for port, kind in ((7003, UDP), (7005, TCP)):
            assert not site.hears("b", (site.ip("a"), port), kind), "another node of the subnet is not the internet"


def test_a_source_group_lets_its_members_in(site: Site) -> None:
    site.allow("udp", 7003, group=site.group)
    with site.server("a", 7003):
        assert not site.hears("b", (site.ip("a"), 7003))
        site.put("b", site.open_group, site.group)
        assert site.hears("b", (site.ip("a"), 7003))
        site.put("b", site.open_group)
        assert not site.hears("b", (site.ip("a"), 7003))


def test_answers_to_what_a_node_began_pass_and_its_api_and_metadata_are_there(site: Site) -> None:
    with site.server("client", 7003), site.server("b", 7003, TCP):
        assert site.hears("a", (str(TOPOLOGY.client_address(1)), 7003))
        assert site.hears("a", (site.ip("b"), 7003), TCP)
    for url in ("http://169.254.169.254/", f"{TOPOLOGY.endpoint_url}/_region/health"):
        curl = ["docker", "exec", f"{TOPOLOGY.cell}-a", "curl", "-s", "-o", "/dev/null", "--max-time", "3", url]
        assert run(curl, timeout_s=10, check=False).ok, url


def test_a_tracked_flow_outlives_its_rule_a_new_one_does_not_begin(site: Site) -> None:
    site.allow("udp", 7003, block=INTERNET)
    site.allow("tcp", 7005, block=INTERNET)
    with site.server("a", 7003), site.server("a", 7005, TCP):
        with site.peer("client", (site.public, 7003)) as udp, site.peer("client", (site.public, 7005), TCP) as tcp:
            assert answered(udp) and answered(tcp)
            site.revoke("udp", 7003, block=INTERNET)
            site.revoke("tcp", 7005, block=INTERNET)
            assert answered(udp) and answered(tcp)
        assert not site.hears("client", (site.public, 7003))
        assert not site.hears("client", (site.public, 7005), TCP)


def test_an_untracked_flow_ends_with_its_rule(site: Site) -> None:
    """From everywhere, and everything may go back: "the flow is immediately interrupted"."""
    site.allow("udp", 7003, block=EVERYBODY)
    site.allow("tcp", 7005, block=EVERYBODY)
    udp, tcp = (site.public, 7003), (site.public, 7005)
    with (
        site.server("a", 7003),
        site.server("a", 7005, TCP),
        site.peer("client", udp) as datagrams,
        site.peer("client", tcp, TCP) as connection,
    ):
        assert answered(datagrams) and answered(connection)
        site.revoke("udp", 7003, block=EVERYBODY)
        site.revoke("tcp", 7005, block=EVERYBODY)
        assert not answered(datagrams) and not answered(connection)


def test_a_closed_port_behind_a_rule_is_refused_through_the_elastic_ip(site: Site) -> None:
    """The ICMP error belongs to a flow that the group knows."""
    site.allow("udp", 7003, block=INTERNET)
    site.ec2.revoke_security_group_egress(GroupId=site.group, IpPermissions=everything())
    with site.peer("client", (site.public, 7003)) as sock, pytest.raises(ConnectionRefusedError):
        answered(sock)


def everything() -> list[dict[str, Any]]:
    return [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": EVERYBODY}]}]


def test_without_rules_for_what_goes_out_a_node_begins_nothing(site: Site) -> None:
    site.ec2.revoke_security_group_egress(GroupId=site.group, IpPermissions=everything())
    site.allow("udp", 7003, block=INTERNET)
    with site.server("client", 7004), site.server("a", 7003):
        assert not site.hears("a", (str(TOPOLOGY.client_address(1)), 7004))
        assert site.hears("client", (site.public, 7003))


def test_a_node_that_starts_is_filtered_from_its_first_packet(site: Site) -> None:
    site.allow("udp", 7002, block=INTERNET)
    site.cloud.stop(site.ids["a"], power_off=True)
    site.cloud.wait_state(site.ids["a"], "stopped", timeout_s=20)
    heard: set[int] = set()
    with socket_in(site.client) as sock:
        sock.settimeout(0.01)

        def open_port_answers() -> bool:
            for port in (7001, 7002):
                sock.sendto(b"?", (site.public, port))
            with suppress(TimeoutError):
                heard.add(sock.recvfrom(9)[1][1])
            return 7002 in heard

        starting = threading.Thread(target=site.cloud.ensure_started, args=(site.ids["a"],), kwargs={"timeout_s": 30})
        starting.start()
        wait_for("the port that a rule opens", open_port_answers, timeout_s=30, every_s=0)
        starting.join()
        with suppress(TimeoutError):
            while True:
                heard.add(sock.recvfrom(9)[1][1])
    assert heard == {7002}


@pytest.fixture
def acl(site: Site) -> Iterator[Callable[..., None]]:
    """Adds an entry to the subnet's ACL; no security group filters meanwhile. All are gone afterwards."""
    made: list[dict[str, Any]] = []
    site.put("a", site.open_group)

    def add(number: int, action: str, *, egress: bool = False, port: int | None = None, block: str = INTERNET) -> None:
        where = {"NetworkAclId": site.acl, "RuleNumber": number, "Egress": egress}
        ports = {} if port is None else {"PortRange": {"From": port, "To": port}}
        protocol = "-1" if port is None else "17"
        site.ec2.create_network_acl_entry(Protocol=protocol, RuleAction=action, CidrBlock=block, **ports, **where)
        made.append(where)

    yield add
    for entry in made:
        site.ec2.delete_network_acl_entry(**entry)


@pytest.mark.parametrize("egress", [False, True], ids=["in", "out"])
def test_an_acl_cuts_what_crosses_the_subnets_boundary_and_nothing_inside(
    site: Site, acl: Callable[..., None], egress: bool
) -> None:
    with site.server("a", 7003), site.peer("client", (site.public, 7003)) as flow:
        assert answered(flow)
        acl(50, "deny", egress=egress)
        assert not answered(flow), "stateless: a flow that is there already ends as well"
        assert site.hears("b", (site.ip("a"), 7003))
        health = ["docker", "exec", f"{TOPOLOGY.cell}-a", "curl", "-sf", f"{TOPOLOGY.endpoint_url}/_region/health"]
        run(health, timeout_s=10)


def test_the_lowest_number_decides(site: Site, acl: Callable[..., None]) -> None:
    with site.server("a", 7003), site.server("a", 7004):
        acl(60, "deny")
        acl(70, "allow", port=7004)
        assert not site.hears("client", (site.public, 7003)) and not site.hears("client", (site.public, 7004))
        acl(50, "allow", port=7003)
        assert site.hears("client", (site.public, 7003)) and not site.hears("client", (site.public, 7004))
