"""Elastic IPs with real packets: a move under load, and the four ways in which an address could leak."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from harness.command import run, wait_for
from harness.region.addresses import Addresses
from harness.region.cleanup import cleanup
from harness.region.journal import Journal
from harness.region.process import start_network
from harness.region.router import create_networks, docker_client, router_pid, start_client, start_container
from harness.topology import Topology
from tests.integration import slots
from tests.integration.namespaces import socket_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PORT = 5060
SILENCE_S = 0.7
"""Longer than the router needs to find out that a machine does not answer (3 x 0.1 s)."""


@dataclass(frozen=True, kw_only=True)
class Net:
    topology: Topology
    addresses: Addresses
    nodes: dict[IPv4Address, int]
    client: int
    public: IPv4Address
    other_public: IPv4Address

    @property
    def a(self) -> IPv4Address:
        return self.topology.node_address(1)

    @property
    def b(self) -> IPv4Address:
        return self.topology.node_address(2)

    @property
    def client_address(self) -> str:
        return str(self.topology.client_address(1))


@pytest.fixture(scope="module")
def subnet() -> Iterator[Net]:
    topology = slots.own("addresses")
    cleanup(topology)
    topology.state_dir.mkdir(parents=True)
    try:
        create_networks(topology)
        start_network(topology)
        nodes = {}
        for index in (1, 2):
            address = topology.node_address(index)
            pid = start_container(
                topology,
                name=f"{topology.cell}-node-{index}",
                role="instance",
                networks={topology.vpc_network: str(address)},
                sysctls={},
            )
            route = ["ip", "route", "replace", "default", "via", str(topology.router_vpc_address)]
            run(["nsenter", "-t", str(pid), "-n", *route], timeout_s=5)
            nodes[address] = pid
        log = topology.state_dir / "icmp.log"
        wait_for("the ICMP translator", lambda: "ready" in log.read_text(), timeout_s=10)
        public, other_public = list(topology.elastic_range.hosts())[:2]
        yield Net(
            topology=topology,
            addresses=Addresses(topology=topology, journal=Journal(topology=topology)),
            nodes=nodes,
            client=start_client(topology, 1),
            public=public,
            other_public=other_public,
        )
    finally:
        cleanup(topology)


@pytest.fixture
def net(subnet: Net) -> Iterator[Net]:
    subnet.addresses.restore({})
    yield subnet
    subnet.addresses.restore({})


def server(net: Net, address: IPv4Address) -> socket.socket:
    return socket_in(net.nodes[address], bind=(str(address), PORT))


class Echo(threading.Thread):
    """Answers every datagram with the number it carries and the name of the machine."""

    def __init__(self, sock: socket.socket, name: bytes) -> None:
        super().__init__(daemon=True)
        self._sock, self._answer, self.over = sock, name, threading.Event()
        sock.settimeout(0.2)

    def run(self) -> None:
        while not self.over.is_set():
            try:
                data, peer = self._sock.recvfrom(2048)
            except TimeoutError:
                continue
            self._sock.sendto(data + b" " + self._answer, peer)


def test_a_move_is_one_transaction_and_loses_nothing_beyond_itself(net: Net) -> None:
    net.addresses.map(net.public, net.a)
    net.addresses.map(net.other_public, net.b)
    echoes = [Echo(server(net, net.a), b"a"), Echo(server(net, net.b), b"b")]
    client = socket_in(net.client)
    client.settimeout(0.3)
    answers: dict[int, bytes] = {}
    sources = set()

    def receive() -> None:
        while True:
            try:
                data, peer = client.recvfrom(2048)
            except TimeoutError:
                return
            number, name = data.split()
            answers[int(number)] = name
            sources.add(peer)

    receiver = threading.Thread(target=receive)
    sent = 0
    moved_after = moved_at = 0
    mover = threading.Thread(target=net.addresses.map, args=(net.public, net.b))
    try:
        for echo in echoes:
            echo.start()
        client.sendto(b"0", (str(net.public), PORT))
        receiver.start()
        start = time.monotonic()
        while (now := time.monotonic()) < start + 1.6:
            if now >= start + 0.001 * sent:
                sent += 1
                client.sendto(b"%d" % sent, (str(net.public), PORT))
                if sent == 700:
                    moved_after = sent
                    mover.start()
                if moved_after and not moved_at and not mover.is_alive():
                    moved_at = sent
            else:
                time.sleep(0.0002)
    finally:
        for echo in echoes:
            echo.over.set()
        receiver.join(timeout=5)
        client.close()
    lost = [n for n in range(1, sent + 1) if n not in answers]
    assert sent > 1000
    assert sources == {(str(net.public), PORT)}
    assert all(moved_after - 5 <= n <= moved_at + 5 for n in lost), lost
    assert {answers[n] for n in range(1, moved_after) if n in answers} == {b"a"}
    assert {answers[n] for n in range(moved_at + 5, sent + 1)} == {b"b"}


def test_a_node_without_a_mapping_reaches_nobody(net: Net) -> None:
    client, node = socket_in(net.client, bind=("0.0.0.0", PORT)), server(net, net.a)
    node.sendto(b"stale", (net.client_address, PORT))
    client.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        client.recvfrom(2048)
    net.addresses.map(net.public, net.a)
    node.sendto(b"hello", (net.client_address, PORT))
    assert client.recvfrom(2048) == (b"hello", (str(net.public), PORT))
    net.addresses.map(net.public, net.b)
    node.sendto(b"stale", (net.client_address, PORT))
    with pytest.raises(TimeoutError):
        client.recvfrom(2048)


def test_private_addresses_are_not_reachable_from_outside(net: Net) -> None:
    net.addresses.map(net.public, net.a)
    client, node = socket_in(net.client), server(net, net.a)
    node.settimeout(SILENCE_S)
    client.sendto(b"private", (str(net.a), PORT))
    with pytest.raises(TimeoutError):
        node.recvfrom(2048)


def test_a_closed_port_behind_the_address_is_refused_not_silent(net: Net) -> None:
    net.addresses.map(net.public, net.a)
    client = socket_in(net.client)
    client.connect((str(net.public), PORT + 1))
    client.send(b"anyone?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(2048)


def test_a_closed_port_of_a_client_is_refused_to_the_node(net: Net) -> None:
    net.addresses.map(net.public, net.a)
    node = server(net, net.a)
    node.connect((net.client_address, PORT + 1))
    node.send(b"anyone?")
    with pytest.raises(ConnectionRefusedError):
        node.recv(2048)


def test_a_closed_port_is_refused_between_nodes_by_their_public_addresses(net: Net) -> None:
    net.addresses.map(net.public, net.a)
    net.addresses.map(net.other_public, net.b)
    node = server(net, net.a)
    node.connect((str(net.other_public), PORT + 1))
    node.send(b"anyone?")
    with pytest.raises(ConnectionRefusedError):
        node.recv(2048)


@pytest.mark.parametrize("case", ["nobody has it", "its owner is off", "the packet dies on the way"])
def test_the_router_never_speaks_for_itself(net: Net, case: str) -> None:
    if case == "its owner is off":
        net.addresses.map(net.public, net.topology.node_address(9))
    elif case == "the packet dies on the way":
        net.addresses.map(net.public, net.a)
    client = socket_in(net.client)
    client.settimeout(SILENCE_S)
    if case == "the packet dies on the way":
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    client.connect((str(net.public), PORT))
    for _ in range(2):
        client.send(b"anyone?")
        with pytest.raises(TimeoutError):
            client.recv(2048)


def test_the_router_does_not_answer_a_ping(net: Net) -> None:
    ping = ["ping", "-c", "1", "-W", "1", str(net.topology.router_internet_address)]
    assert not run(["nsenter", "-t", str(net.client), "-n", "-m", *ping], timeout_s=5, check=False).ok


def test_a_ping_of_the_address_reaches_its_owner(net: Net) -> None:
    ping = ["nsenter", "-t", str(net.client), "-n", "-m", "ping", "-c", "1", "-W", "1", str(net.public)]
    net.addresses.map(net.public, net.a)
    assert "1 received" in run(ping, timeout_s=5).stdout
    net.addresses.unmap(net.public)
    assert not run(ping, timeout_s=5, check=False).ok


def test_a_node_reaches_its_own_address_and_that_of_another(net: Net) -> None:
    net.addresses.map(net.public, net.a)
    net.addresses.map(net.other_public, net.b)
    a, b = server(net, net.a), server(net, net.b)
    caller = socket_in(net.nodes[net.a], bind=(str(net.a), PORT + 7))
    caller.sendto(b"me", (str(net.public), PORT))
    assert a.recvfrom(2048) == (b"me", (str(net.public), PORT + 7))
    a.sendto(b"answer", (str(net.public), PORT + 7))
    assert caller.recvfrom(2048) == (b"answer", (str(net.public), PORT))
    a.sendto(b"you", (str(net.other_public), PORT))
    assert b.recvfrom(2048) == (b"you", (str(net.public), PORT))
    b.sendto(b"answer", (str(net.public), PORT))
    assert a.recvfrom(2048) == (b"answer", (str(net.other_public), PORT))


def test_nothing_can_leave_the_host(net: Net) -> None:
    routes = run(["nsenter", "-t", str(router_pid(net.topology)), "-n", "ip", "route"], timeout_s=5).stdout
    assert "default" not in routes
    for name in (net.topology.vpc_network, net.topology.internet_network):
        options = docker_client().networks.get(name).attrs["Options"]
        assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"


def test_another_process_reads_the_same_table(net: Net) -> None:
    net.addresses.map(net.public, net.a)
    again = Addresses(topology=net.topology, journal=Journal(topology=net.topology))
    assert again.table() == {net.public: net.a}
    again.unmap(net.public)
    assert net.addresses.table() == {}
