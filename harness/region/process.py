"""Brings the region of a cell up and takes it down: networks, router, books, gateway, each wait bounded.

start_region ── networks ── router + rules ── ICMP translator ─┐
      ├─ books (moto | LocalStack) ────────────────────────────┤ gateway answers /_region/health
      └─ gateway (waits for both) ─────────────────────────────┘
"""

from __future__ import annotations

import json
import secrets
import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.command import run, wait_for
from harness.errors import InfrastructureError
from harness.region import background, localstack
from harness.region.addresses import TABLE_FILE, ruleset
from harness.region.api_path import Api, write_api
from harness.region.books import Books, place_file
from harness.region.cleanup import cleanup
from harness.region.credentials import HarnessKey, new_access_key_id
from harness.region.files import write_json
from harness.region.router import create_networks, interfaces, load_rules, start_client, start_router
from harness.region.timing import INSTANT, Timing, timing_file
from harness.topology import Topology

__all__ = ["Region", "dead_parts", "region_state", "start_client", "start_gateway", "start_region", "stop_region"]

START_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Region:
    """A region that answers: where, and with which key the harness calls. Guests call `guest_endpoint_url`."""

    topology: Topology
    endpoint_url: str
    key: HarnessKey
    timing: Timing
    guest_endpoint_url: str


def start_region(
    topology: Topology,
    *,
    node_image_names: Iterable[str],
    timing: Timing = INSTANT,
    seed: int = 0,
    localstack_image: str | None = None,
    found: Books | None = None,
    api: Api = "endpoint",
) -> Region:
    """Start the region; `node_image_names` are Docker images that become AMIs of the same name.

    `timing` says how long AWS is to take, drawn with `seed`. The books are those `found`, or LocalStack's when its
    image is given, or moto's. `api` is the guests' way to the API: a VPC endpoint, or the internet, for which they need
    a public address.
    `InfrastructureError`, one line, when the slot's networks are taken or a part does not come up; what was started by
    then stays for `stop_region`.
    """
    topology.state_dir.mkdir(parents=True, exist_ok=True)
    topology.state_dir.chmod(0o700)
    key = HarnessKey(access_key_id=new_access_key_id(), secret_access_key=secrets.token_urlsafe(30))
    key.write(topology.state_dir)
    write_json(timing_file(topology), {"seed": seed, "timing": timing.model_dump(mode="json")})
    write_api(topology, api)
    books = _start_books(topology, localstack_image, found)
    create_networks(topology)
    gateway = start_gateway(topology)
    start_network(topology)
    if api == "public":
        open_way_back(topology)
    _register_images(books(), node_image_names)
    wait_for_gateway(topology, gateway)
    guests = topology.public_endpoint_url if api == "public" else topology.endpoint_url
    return Region(
        topology=topology, endpoint_url=topology.endpoint_url, key=key, timing=timing, guest_endpoint_url=guests
    )


def start_network(topology: Topology) -> None:
    """The router between the two networks (which are there), its rules, and the translator of ICMP errors."""
    pid = start_router(topology)
    vpc, internet = interfaces(topology, pid)
    load_rules(topology, pid, ruleset(topology, vpc_interface=vpc, internet_interface=internet))
    write_json(topology.state_dir / TABLE_FILE, {})
    names = ["--vpc-interface", vpc, "--internet-interface", internet]
    _spawn(topology, "icmp", [*_cell(topology), *names], netns_pid=pid)


def open_way_back(topology: Topology) -> None:
    """The host's route to the public addresses, by the router: answers of the API. It goes with the internet bridge."""
    via = str(topology.router_internet_address)
    run(["ip", "route", "replace", str(topology.elastic_range), "via", via], timeout_s=5)


def stop_region(topology: Topology) -> list[str]:
    """Take everything of the cell away, also the ruins of one that died; returns what was removed. Idempotent."""
    return cleanup(topology)


def start_gateway(topology: Topology) -> subprocess.Popen[bytes]:
    """Start the gateway, for the first time or again after it died; `wait_for_gateway` tells when it answers."""
    return _spawn(topology, "gateway", [*_cell(topology), "--books", str(place_file(topology))])


def wait_for_gateway(topology: Topology, process: subprocess.Popen[bytes]) -> None:
    """Until the gateway answers; `InfrastructureError` with its last words when it dies instead."""

    def answers() -> bool:
        _check(process, topology.state_dir / "gateway.log")
        try:
            return bool(_get(topology, "health", timeout_s=1)["status"] == "ok")
        except OSError:
            return False

    wait_for("the region's gateway", answers, timeout_s=START_TIMEOUT_S, every_s=0.02)


def region_state(topology: Topology) -> dict[str, Any]:
    """The data plane as it is: {instances, addresses, volumes}; `InfrastructureError` when the gateway is not there."""
    try:
        return _get(topology, "state", timeout_s=5)
    except OSError as error:
        raise InfrastructureError(f"the region of {topology.cell} does not answer ({error}): is it up?") from error


def dead_parts(topology: Topology) -> list[str]:
    """The region's parts that do not run any more, in words: what is measured without them says nothing of the cell."""
    running = " ".join(background.marked(topology.cell).values())
    books = Books.read(place_file(topology))
    parts = ["gateway", "icmp"] + (["books"] if books is not None and books.kind == "moto" else [])
    return [
        f"the region's {part} has died: see logs/region-{part}.log of the run"
        for part in parts
        if f"harness.region.{part} " not in running
    ]


def _get(topology: Topology, what: str, *, timeout_s: float) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{topology.endpoint_url}/_region/{what}", timeout=timeout_s) as response:
        return dict(json.load(response))


def _start_books(topology: Topology, localstack_image: str | None, found: Books | None) -> Callable[[], Books]:
    """Start the books; what is returned waits until they answer and have written down where."""
    place = place_file(topology)
    place.unlink(missing_ok=True)
    if found is not None:
        found.write(place)
        return lambda: found
    if localstack_image is not None:
        localstack.start(topology, localstack_image)
        return lambda: localstack.wait(topology, place)
    process = _spawn(topology, "books", ["--place-file", str(place)])

    def ready() -> Books | None:
        _check(process, topology.state_dir / "books.log")
        return Books.read(place)

    return lambda: wait_for("the region's books", ready, timeout_s=START_TIMEOUT_S, every_s=0.02)


def _register_images(books: Books, names: Iterable[str]) -> None:
    for name in names:
        books.call("RegisterImage", {"Name": name, "RootDeviceName": "/dev/xvda", "Architecture": "x86_64"})


def _cell(topology: Topology) -> list[str]:
    return ["--cell", topology.cell, "--slot", str(topology.slot)]


def _spawn(
    topology: Topology, name: str, arguments: Sequence[str], *, netns_pid: int | None = None
) -> subprocess.Popen[bytes]:
    """A part of the region as a background process of the cell; its output is in <name>.log."""
    log = topology.state_dir / f"{name}.log"
    return background.start(f"harness.region.{name}", arguments, cell=topology.cell, log=log, netns_pid=netns_pid)


def _check(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise InfrastructureError(f"{log.stem} of the region ended with {process.returncode}: {last}")
