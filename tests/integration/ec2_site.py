"""The gateway on a data plane of dictionaries, with books of either kind: fixtures of the test_ec2_… files.

What AWS promises is in tests/contract; here is what the region does beyond that, seen by boto3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.config import Config

from harness import topology as topologies
from harness.cloud import Cloud
from harness.region.books import Books
from harness.region.plane import Plane
from harness.region.state import State
from harness.topology import Topology
from tests.in_process import KEY, books_of, fresh, serve
from tests.integration import slots
from tests.planes import FakeAddresses, FakeFilters, FakeInstances, FakeJournal, FakeVolumes

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


@dataclass(kw_only=True)
class Site:
    topology: Topology
    books: Books
    instances: FakeInstances
    volumes: FakeVolumes
    addresses: FakeAddresses
    journal: FakeJournal
    plane: Plane
    url: str
    filters: FakeFilters = field(default_factory=FakeFilters)
    _clients: dict[str, EC2Client] = field(default_factory=dict)
    _cloud: Cloud | None = None

    def ec2(self, key: str = KEY) -> EC2Client:
        if key not in self._clients:
            self._clients[key] = boto3.client(
                "ec2",
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=key,
                aws_secret_access_key="x",
                config=Config(retries={"total_max_attempts": 1}, read_timeout=10),
            )
        return self._clients[key]

    def cloud(self) -> Cloud:
        self._cloud = self._cloud or Cloud(endpoint_url=self.url, access_key_id=KEY, secret_access_key="x")
        return self._cloud

    def calls(self) -> list[dict[str, Any]]:
        text = (self.topology.state_dir / "cloud-calls.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def new_plane(self) -> Plane:
        """A plane as a gateway has it that starts over what is there."""
        return Plane(
            topology=self.topology,
            state=State(self.topology.state_dir),
            books=self.books,
            journal=cast(Any, self.journal),
            instances=cast(Any, self.instances),
            volumes=cast(Any, self.volumes),
            addresses=cast(Any, self.addresses),
            filters=cast(Any, self.filters),
        )


@pytest.fixture(scope="module", params=["moto", pytest.param("localstack", marks=pytest.mark.soak)])
def books(request: pytest.FixtureRequest) -> Iterator[Books]:
    with books_of(request.param, slots.own("lst-actions")) as found:
        yield found


@pytest.fixture
def site(books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    topology = Topology(cell="rco-actions", slot=2)
    (topology.state_dir / "metadata").mkdir(parents=True)
    books = fresh(books)
    books.call("RegisterImage", {"Name": "node:test", "RootDeviceName": "/dev/xvda", "Architecture": "x86_64"})
    made = Site(
        topology=topology,
        books=books,
        instances=FakeInstances(),
        volumes=FakeVolumes(),
        addresses=FakeAddresses(),
        journal=FakeJournal(),
        plane=cast(Any, None),
        url="",
    )
    made.plane = made.new_plane()
    made.url, stop = serve(made.plane)
    yield made
    made.instances.gate.set()
    stop()


@pytest.fixture
def two(site: Site) -> tuple[str, str]:
    """Two running instances, a and b."""
    cloud = site.cloud()
    subnet = cloud.create_network(site.topology.vpc_subnet)
    ips = {"a": str(site.topology.node_address(1)), "b": str(site.topology.node_address(2))}
    ids = cloud.run_instances(ips, image="node:test", subnet_id=subnet, timeout_s=10)
    return ids["a"], ids["b"]


def described(site: Site, instance_id: str) -> Any:
    return site.ec2().describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
