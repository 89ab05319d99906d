"""LocalStack as the region's books, in a container on a network of its own that leads nowhere.

Only the host reaches it, at the container's own address: nodes and clients have no way past the gateway. The docker SDK
starts it, not testcontainers: a cell outlives the process that brought it up (`pbx-chaos up`), and clean-up finds it by
its label like everything else. With a licence token the public image has to reach LocalStack's servers to be let run:
then, and only then, its network has a way out.
"""

from __future__ import annotations

import http.client
import json
import os
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import APIError, NotFound

from harness.command import run, wait_for
from harness.errors import InfrastructureError
from harness.images import LOCALSTACK_TOKEN, PUBLIC_LOCALSTACK
from harness.region.books import Books
from harness.region.router import container_pid, docker_client
from harness.topology import CELL_LABEL, ROLE_LABEL, Topology

PORT = 4566
START_TIMEOUT_S = 60.0
"""Two to four seconds on an idle host."""

NAMES = ("localhost.localstack.cloud", "s3.localhost.localstack.cloud")
"""It looks its own public names up when it starts, and hangs for seconds where no name service answers."""


def start(topology: Topology, image: str) -> None:
    """Start the container and its network; `wait` tells when it answers. Replaces one that is there."""
    api = docker_client().api
    name = _name(topology)
    with suppress(NotFound):
        api.remove_container(name, force=True)
    with suppress(NotFound):
        api.remove_network(name)
    token = os.environ.get(LOCALSTACK_TOKEN) if image == PUBLIC_LOCALSTACK else None
    pool = docker.types.IPAMPool(subnet=str(topology.books_subnet), gateway=str(topology.books_subnet[1]))
    address = str(topology.books_subnet[2])
    try:
        api.create_network(
            name,
            driver="bridge",
            internal=token is None,
            ipam=docker.types.IPAMConfig(pool_configs=[pool]),
            labels={CELL_LABEL: topology.cell},
            check_duplicate=True,
        )
        api.create_container(
            image,
            name=name,
            hostname=name,
            environment={"DISABLE_EVENTS": "1", "SKIP_SSL_CERT_DOWNLOAD": "1", "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}
            | ({} if token is None else {LOCALSTACK_TOKEN: token}),
            labels={CELL_LABEL: topology.cell, ROLE_LABEL: "books"},
            host_config=api.create_host_config(
                network_mode=name, cap_drop=["NET_ADMIN", "NET_RAW"], extra_hosts=dict.fromkeys(NAMES, "127.0.0.1")
            ),
            networking_config=api.create_networking_config({name: api.create_endpoint_config(ipv4_address=address)}),
        )
        api.start(name)
    except APIError as error:
        raise InfrastructureError(f"LocalStack ({image}) does not start: {error.explanation or error}") from error
    if token is None:
        run(["nsenter", "-t", str(container_pid(name)), "-n", "ip", "route", "del", "default"], timeout_s=5)


def wait(topology: Topology, place: Path) -> Books:
    """Until its EC2 answers; then its place is written to `place` for the gateway.

    `InfrastructureError` with its last words when it ends instead.
    """
    books = Books(host=str(topology.books_subnet[2]), port=PORT, kind="localstack")
    seen = "nothing"

    def answers() -> bool:
        nonlocal seen
        _check(topology)
        try:
            seen = _health(books)
        except (OSError, http.client.HTTPException, ValueError) as error:
            seen = str(error)
        return seen in ("running", "available")

    wait_for("LocalStack's EC2", answers, timeout_s=START_TIMEOUT_S, every_s=0.05, last_seen=lambda: seen)
    books.write(place)
    return books


def _health(books: Books) -> str:
    """What LocalStack says of its EC2: `running`, `available` (loaded at the first call), `starting` …"""
    connection = http.client.HTTPConnection(books.host, books.port, timeout=2)
    try:
        connection.request("GET", "/_localstack/health")
        return str(json.load(connection.getresponse())["services"].get("ec2"))
    finally:
        connection.close()


def _check(topology: Topology) -> None:
    api = docker_client().api
    try:
        state = api.inspect_container(_name(topology))["State"]
    except NotFound:
        raise InfrastructureError(f"container {_name(topology)} (LocalStack) is gone") from None
    if not state["Running"]:
        said = api.logs(_name(topology), tail=1).decode(errors="replace").strip() or "it said nothing"
        raise InfrastructureError(f"LocalStack ended with {state['ExitCode']}: {said}")


def _name(topology: Topology) -> str:
    return f"{topology.cell}-books"
