"""LocalStack as the region's books: one that runs already, or one in a container on a network that leads nowhere.

One that runs already is taken only where the user says so (LOCALSTACK_HOST): found with localstack-client, never
stopped, and asked under an account of the cell's own, so that nothing of the user's is touched.

One that is started here only the host reaches, at the container's own address: nodes and clients have no way past the
gateway. The docker SDK starts it, not testcontainers: its reaper takes containers away with the session that made them,
while a cell outlives the process that brought it up (`pbx-chaos up`), and it publishes LocalStack's port on the host.
Clean-up finds ours by its label like everything else. With a licence token the public image has to reach LocalStack's
servers to be let run: then, and only then, its network has a way out.
"""

from __future__ import annotations

import http.client
import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from localstack_client.config import parse_localstack_host

from harness.command import run, wait_for
from harness.errors import InfrastructureError, UsageError
from harness.images import LOCALSTACK_TOKEN, PUBLIC_LOCALSTACK
from harness.region.books import Books
from harness.region.router import container_pid, docker_client
from harness.topology import CELL_LABEL, ROLE_LABEL, Topology

PORT = 4566
HOST = "LOCALSTACK_HOST"
READY = ("running", "available")
START_TIMEOUT_S = 60.0
"""Two to four seconds on an idle host."""

NAMES = ("localhost.localstack.cloud", "s3.localhost.localstack.cloud")
"""It looks its own public names up when it starts, and hangs for seconds where no name service answers."""


def running(topology: Topology) -> Books | None:
    """The LocalStack that LOCALSTACK_HOST names, with an account for this cell; None when it is not set.

    `UsageError` for a name that can't be one, `InfrastructureError` when no EC2 of LocalStack answers there.
    """
    given = os.environ.get(HOST, "").strip()
    if not given:
        return None
    try:
        host, port = parse_localstack_host(given)
    except RuntimeError as error:
        raise UsageError(f"{HOST}={given}: give it as HOST or HOST:PORT") from error
    books = Books(host=host, port=port, kind="localstack", account=account_of(topology.cell))
    try:
        seen = _health(books)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise InfrastructureError(
            f"{HOST}={given}: no LocalStack answers there ({error}): start it, or unset it"
        ) from error
    if seen not in READY:
        raise InfrastructureError(f"{HOST}={given}: its EC2 is {seen}: is the service enabled?")
    return books


def account_of(cell: str) -> str:
    """Twelve digits that are this cell's and hardly anybody else's: LocalStack keeps accounts apart."""
    return f"{10**11 + int.from_bytes(sha256(cell.encode()).digest()[:8], 'big') % (9 * 10**11):012d}"


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
        return seen in READY

    wait_for("LocalStack's EC2", answers, timeout_s=START_TIMEOUT_S, every_s=0.05, last_seen=lambda: seen)
    books.write(place)
    return books


def version(books: Books) -> str:
    """Which LocalStack answers there."""
    return str(_told(books).get("version", "unknown"))


def _health(books: Books) -> str:
    """What LocalStack says of its EC2: `running`, `available` (loaded at the first call), `starting` …"""
    return str(_told(books)["services"].get("ec2"))


def _told(books: Books) -> dict[str, Any]:
    connection = http.client.HTTPConnection(books.host, books.port, timeout=2)
    try:
        connection.request("GET", "/_localstack/health")
        return dict(json.load(connection.getresponse()))
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
