"""The networks of a cell and the machines on them that are not nodes: the router between VPC and internet, clients.

Two Docker bridges without masquerade, one router container on both with no default route of its own: no packet of a
cell can leave the host. The EC2 API is reached on the VPC bridge itself, at the host's own address there.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from typing import Any

import docker
from docker.errors import APIError, NotFound

from harness import engine, images
from harness.command import CommandFailed, run
from harness.errors import InfrastructureError
from harness.topology import CELL_LABEL, ROLE_LABEL, Topology

NEIGHBOUR_RETRY_MS = 100
"""How often the router asks for a node's hardware address: a VPC has no ARP, the usual second would be ours alone."""


@lru_cache(maxsize=1)
def docker_client() -> Any:
    """The Docker engine of this host, connected once per process."""
    return engine.connect()


def create_networks(topology: Topology) -> None:
    """The VPC's subnet and the internet, each a labelled bridge; `InfrastructureError` when the slot is taken."""
    networks = {topology.vpc_network: topology.vpc_subnet, topology.internet_network: topology.internet_subnet}
    for name, subnet in networks.items():
        if holder := _holder(str(subnet)):
            raise _busy(topology, f"{subnet} is in use on this host ({holder})")
        pool = docker.types.IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
        try:
            docker_client().networks.create(
                name,
                driver="bridge",
                ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
                labels={CELL_LABEL: topology.cell},
                check_duplicate=True,
            )
        except APIError as error:
            raise _busy(topology, str(error.explanation or error)) from error


def start_router(topology: Topology) -> int:
    """Start the router, without rules yet; returns its host pid. Only `load_rules` opens it."""
    sysctls = {
        "net.ipv4.ip_forward": "0",
        "net.ipv4.conf.all.rp_filter": "0",
        "net.ipv4.conf.default.rp_filter": "0",
        "net.ipv4.conf.all.send_redirects": "0",
        "net.ipv4.conf.default.send_redirects": "0",
    }
    pid = start_container(
        topology,
        name=topology.router_name,
        role="router",
        networks={
            topology.vpc_network: str(topology.router_vpc_address),
            topology.internet_network: str(topology.router_internet_address),
        },
        sysctls=sysctls,
    )
    _in_netns(pid, "ip", "route", "del", "default")
    return pid


def load_rules(topology: Topology, pid: int, rules: str) -> None:
    """Load the filter, then let packets pass: there is no moment in which they pass unfiltered."""
    run(["nsenter", "-t", str(pid), "-n", "-m", "nft", "-f", "-"], timeout_s=5, input=rules)
    settings = ["net.ipv4.ip_forward=1"]
    for name in interfaces(topology, pid):
        settings.append(f"net.ipv4.conf.{name}.rp_filter=0")
        settings.append(f"net.ipv4.conf.{name}.send_redirects=0")
        settings.append(f"net.ipv4.neigh.{name}.retrans_time_ms={NEIGHBOUR_RETRY_MS}")
    _in_netns(pid, "sysctl", "-qw", *settings)


def interfaces(topology: Topology, pid: int) -> tuple[str, str]:
    """The router's interfaces (VPC, internet), found by address: the order of ethN is not the connect order."""
    rows: list[dict[str, Any]] = json.loads(_in_netns(pid, "ip", "-j", "-4", "addr"))
    names = {info["local"]: row["ifname"] for row in rows for info in row["addr_info"]}
    return names[str(topology.router_vpc_address)], names[str(topology.router_internet_address)]


def router_pid(topology: Topology) -> int:
    """Host pid of the router's init; `InfrastructureError` when it does not run."""
    return container_pid(topology.router_name)


def container_pid(name: str) -> int:
    """Host pid of a running container's init."""
    try:
        state = docker_client().api.inspect_container(name)["State"]
    except NotFound:
        raise InfrastructureError(f"container {name} is not there: is the cell up?") from None
    if not state["Running"]:
        raise InfrastructureError(f"container {name} is {state['Status']}, not running")
    return int(state["Pid"])


def start_client(topology: Topology, index: int) -> int:
    """Start client machine `index` (1, 2, …) on the internet side; returns its host pid. Replaces one that is there."""
    name = client_name(topology, index)
    pid = start_container(
        topology,
        name=name,
        role="client",
        networks={topology.internet_network: str(topology.client_address(index))},
        sysctls={},
    )
    _in_netns(pid, "ip", "route", "replace", "default", "via", str(topology.router_internet_address))
    return pid


def client_name(topology: Topology, index: int) -> str:
    return f"{topology.cell}-client-{index}"


def start_container(
    topology: Topology, *, name: str, role: str, networks: dict[str, str], sysctls: dict[str, str]
) -> int:
    """Start a machine; returns its host pid. Replaces one of the same name.

    Created on the first network, connected to the others, then started: all interfaces are there from the beginning.
    """
    api = docker_client().api
    with suppress(NotFound):
        api.remove_container(name, force=True)
    (first, address), *others = networks.items()
    try:
        api.create_container(
            images.wanted().net,
            name=name,
            hostname=name,
            labels={CELL_LABEL: topology.cell, ROLE_LABEL: role},
            host_config=api.create_host_config(
                network_mode=first, cap_add=["NET_ADMIN", "NET_RAW"], sysctls=sysctls, init=False
            ),
            networking_config=api.create_networking_config({first: api.create_endpoint_config(ipv4_address=address)}),
        )
        for network, other in others:
            api.connect_container_to_network(name, network, ipv4_address=other)
        api.start(name)
    except NotFound as error:
        raise InfrastructureError(f"{error.explanation}: `pbx-chaos doctor` says how to build it") from error
    except APIError as error:
        raise InfrastructureError(f"container {name} does not start: {error.explanation or error}") from error
    return container_pid(name)


def _in_netns(pid: int, *argv: str) -> str:
    return run(["nsenter", "-t", str(pid), "-n", *argv], timeout_s=5).stdout


def _holder(subnet: str) -> str | None:
    """What on the host already has an address or a route inside `subnet` (one line of `ip route`), or None."""
    try:
        lines = run(["ip", "-4", "route", "show", "table", "all", "root", subnet], timeout_s=5).stdout.splitlines()
    except CommandFailed:
        return None
    return lines[0].strip() if lines else None


def _busy(topology: Topology, why: str) -> InfrastructureError:
    return InfrastructureError(
        f"slot {topology.slot} is not free: {why}; choose another one with --slot N, or run `pbx-chaos clean`"
    )
