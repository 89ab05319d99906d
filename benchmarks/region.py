"""The local region's own figures: what the gateway costs, how fast the data plane follows the API, what watching costs.

A region with two nodes and a client, stopped again at the end; then a whole cell for the observer. The gateway and the
bare books are asked in turns, by the same client, with the same data. Values that have a peer are from the same run.

`python -m benchmarks.region [--cell NAME --slot N] [--rounds 200] [--moves 20] [--no-cell]`
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import docker
from botocore.config import Config
from docker.errors import DockerException

from benchmarks.figures import Figure, figure
from harness import images
from harness.cell import cell as cells
from harness.cell.policy import load_policy
from harness.cell.profile import load_profile
from harness.cloud import Cloud
from harness.command import wait_for
from harness.errors import HarnessError
from harness.images import Images
from harness.region.books import Books, place_file
from harness.region.process import start_client, start_region, stop_region
from harness.topology import REGION_NAME, Topology

THREADS = 8
PORT = 5999
WARM_UP = 20
OBSERVED_S = 10.0
SO_TIMESTAMPNS = 35
CLONE_NEWNET = 0x40000000
SENDER = """
import socket, sys, time
s, due = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), time.monotonic()
while True:
    s.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
    due = max(due + 0.001, time.monotonic() - 0.01)
    time.sleep(max(0, due - time.monotonic()))
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A region that is up: two nodes, a client, a volume, an address."""

    topology: Topology
    cloud: Cloud
    gateway: Any
    bare: Any
    ids: Sequence[str]
    pids: Sequence[int]
    client_pid: int


def figures(*, cell: str, slot: int, rounds: int = 200, moves: int = 20, whole_cell: bool = True) -> list[Figure]:
    """Measure everything; half a minute, and another for the whole cell."""
    topology = Topology(cell=f"{cell}-region", slot=slot)
    built = images.ensure(docker.from_env(), say=lambda text: print(text, file=sys.stderr))
    with region(topology, built.node) as site:
        found = [*describes(site, rounds), *throughput(site, rounds), move(site, moves), attach(site, moves)]
    return [*found, observer(Topology(cell=f"{cell}-watch", slot=slot), built)] if whole_cell else found


def describes(site: Site, rounds: int) -> list[Figure]:
    """describe_addresses, in turns through the gateway and from the bare books."""
    took: dict[str, list[float]] = {"gateway": [], "bare": []}
    for _ in range(rounds + WARM_UP):
        for name, client in (("bare", site.bare), ("gateway", site.gateway)):
            began = time.perf_counter()
            client.describe_addresses()
            took[name].append((time.perf_counter() - began) * 1e3)
    through, bare = took["gateway"][WARM_UP:], took["bare"][WARM_UP:]
    peer = {"peer": "bare books", "peer_value": round(median(bare), 3)}
    extra = [a - median(bare) for a in through]
    return [
        figure("region_describe_ms", through, unit="ms", **peer),
        figure("region_describe_overhead_ms", extra, unit="ms", target=5.0),
    ]


def throughput(site: Site, rounds: int) -> list[Figure]:
    """Calls per second of eight threads, in turns; the gateway's as a slowdown, so that less is better."""
    slower, through, bare = [], [], []
    for _ in range(3):
        bare.append(_rate(site.bare.describe_addresses, rounds))
        through.append(_rate(site.gateway.describe_addresses, rounds))
        slower.append(bare[-1] / through[-1])
    peer = {"peer": "bare books", "peer_value": round(median(bare), 1)}
    return [
        figure("region_describes_per_s", through, unit="1/s", **peer),
        figure("region_describe_slowdown", slower, unit="ratio", target=round(1 / 0.6, 3)),
    ]


def move(site: Site, moves: int) -> Figure:
    """From the API's answer to AssociateAddress until the first packet at the new node; 0 when it was there before."""
    address = site.cloud.allocate_address()
    receivers = [receiver(pid) for pid in site.pids]
    sender = subprocess.Popen(
        ["nsenter", "-t", str(site.client_pid), "-n", sys.executable, "-c", SENDER, address.public_ip, str(PORT)],
        stdin=subprocess.DEVNULL,
    )
    took = []
    try:
        for number in range(moves + 1):
            to = number % 2
            drain(receivers[to])
            asked_ns = time.time_ns()
            site.cloud.associate(address.allocation_id, site.ids[to])
            answered_ns = time.time_ns()
            took.append(max(0.0, (first_packet(receivers[to], since_ns=asked_ns) - answered_ns) / 1e6))
            time.sleep(0.05)  # the other one's last packets arrive
    finally:
        sender.kill()
        sender.wait(timeout=5)
        for one in receivers:
            one.close()
    return figure("region_address_move_ms", took[1:], unit="ms", target=20.0)


def attach(site: Site, times: int) -> Figure:
    """From asking for AttachVolume until the guest's device gives its first block."""
    volume_id = site.cloud.create_volume(size_gib=1)
    devices = Path(f"/proc/{site.pids[0]}/root/dev")
    took = []
    for _ in range(times):
        before = {path.name for path in devices.glob("nvme*")}
        began = time.monotonic()
        site.gateway.attach_volume(VolumeId=volume_id, InstanceId=site.ids[0], Device="/dev/sdf")
        ready = partial(_readable, devices, before)
        wait_for("a device that can be read", ready, timeout_s=10, every_s=0.001)
        took.append((time.monotonic() - began) * 1e3)
        wait_for("attached", partial(_attached, site.cloud, volume_id), timeout_s=10)
        site.cloud.detach(volume_id)
    site.cloud.delete_volume(volume_id)
    return figure("region_attach_to_device_ms", took, unit="ms", target=150.0)


def observer(topology: Topology, built: Images) -> Figure:
    """Share of one core that the ownership observer takes, watching a whole cell."""
    stop_region(topology)
    out = topology.state_dir / "ownership.jsonl"
    try:
        cells.up(
            topology,
            policy=load_policy("tuned"),
            profile=load_profile("stand-in"),
            images=built,
            progress=lambda _: None,
        )
        argv = [sys.executable, "-m", "harness.cell.observe", "--state-dir", str(topology.state_dir), "--out", str(out)]
        watching = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            time.sleep(1)
            before_s = _cpu_s(watching.pid)
            time.sleep(OBSERVED_S)
            share = (_cpu_s(watching.pid) - before_s) / OBSERVED_S
        finally:
            watching.terminate()
            watching.wait(timeout=5)
    finally:
        stop_region(topology)
    return figure("observer_cpu_ratio", [share], unit="ratio")


@contextmanager
def region(topology: Topology, image: str) -> Iterator[Site]:
    stop_region(topology)
    try:
        key = start_region(topology, node_image_names=[image]).key
        keys = {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
        cloud = Cloud(endpoint_url=topology.endpoint_url, **keys)
        books = Books.read(place_file(topology))
        assert books is not None
        ips = {name: str(topology.node_address(n)) for n, name in enumerate("ab", 1)}
        ids = cloud.run_instances(ips, image=image, subnet_id=cloud.create_network(topology.vpc_subnet), timeout_s=60)
        client = docker.from_env()
        pids = [client.containers.get(f"{topology.cell}-{name}").attrs["State"]["Pid"] for name in ids]
        yield Site(
            topology=topology,
            cloud=cloud,
            gateway=_ec2(topology.endpoint_url, key.access_key_id),
            bare=_ec2(books.url, "123456789012"),
            ids=list(ids.values()),
            pids=pids,
            client_pid=start_client(topology, 1),
        )
    finally:
        stop_region(topology)


def receiver(pid: int) -> socket.socket:
    """A UDP socket in the namespace of a node, whose packets carry the kernel's receive time."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/proc/{pid}/ns/net") as there:  # noqa: PTH123
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    made.bind(("0.0.0.0", PORT))
    made.settimeout(5)
    return made


def drain(one: socket.socket) -> None:
    one.setblocking(False)
    try:
        while True:
            one.recv(100)
    except BlockingIOError:
        one.settimeout(5)


def first_packet(one: socket.socket, *, since_ns: int) -> int:
    """When (wall clock, ns) the kernel got the first packet after `since_ns`."""
    while True:
        _, ancillary, _, _ = one.recvmsg(100, 100)
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        if (at_ns := seconds * 1_000_000_000 + nanoseconds) >= since_ns:
            return int(at_ns)


def _readable(devices: Path, before: set[str]) -> bool:
    for path in devices.glob("nvme*"):
        if path.name not in before:
            try:
                handle = os.open(path, os.O_RDONLY)
            except OSError:
                return False
            try:
                return len(os.read(handle, 4096)) == 4096
            finally:
                os.close(handle)
    return False


def _attached(cloud: Cloud, volume_id: str) -> bool:
    place = cloud.volume_attachment(volume_id)
    return place is not None and place.state == "attached"


def _rate(call: Callable[[], object], each: int) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: [call() for _ in range(each // 2)], range(THREADS)))
    return THREADS * (each // 2) / (time.perf_counter() - began)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ec2(url: str, key: str) -> Any:
    return boto3.client(
        "ec2",
        endpoint_url=url,
        region_name=REGION_NAME,
        aws_access_key_id=key,
        aws_secret_access_key="not-a-secret",
        config=Config(proxies={}, retries={"total_max_attempts": 1}, max_pool_connections=2 * THREADS),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", default="pbx-bench")
    parser.add_argument("--slot", type=int, default=13)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--no-cell", action="store_true", help="without the observer, which needs a whole cell")
    args = parser.parse_args()
    try:
        measured = figures(
            cell=args.cell, slot=args.slot, rounds=args.rounds, moves=args.moves, whole_cell=not args.no_cell
        )
    except (HarnessError, DockerException) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\n".join(one.line() for one in measured))
    return 0 if all(one.met for one in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
