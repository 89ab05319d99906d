"""The gateway on a data plane of dictionaries, in this process, in front of moto or LocalStack."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import boto3

from harness.cloud import Cloud
from harness.region.books import Books
from harness.region.calls import AwsError
from harness.region.control import KEY_HEADER
from harness.region.plane import Plane
from harness.region.state import State
from harness.topology import REGION_NAME, ZONE, Topology
from tests.contract.site import Site
from tests.fronts import FakeGuests
from tests.in_process import KEY, fresh, serve
from tests.planes import FakeAddresses, FakeFilters, FakeInstances, FakeJournal, FakeVolumes

TOPOLOGY = Topology(cell="ctr-contract", slot=11)
IMAGE = "node:test"


@dataclass
class Clock:
    """Monotonic, and can be put forward: what is old in the gateway's memory need not be waited for."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@dataclass(kw_only=True)
class PoweredGuests(FakeGuests):
    """Guests that hear commands while their machine runs."""

    machines: FakeInstances

    def hears(self, instance_id: str) -> bool:
        return self.machines.power(instance_id) == "on"


@dataclass(kw_only=True)
class LocalSite(Site):
    """A site whose data plane can be looked into."""

    topology: Topology
    books: Books
    instances: FakeInstances
    volumes: FakeVolumes
    addresses: FakeAddresses
    journal: FakeJournal
    filters: FakeFilters
    plane: Plane
    clock: Clock
    _cloud: Cloud | None = field(default=None)

    def cloud(self) -> Cloud:
        """The harness's own client."""
        self._cloud = self._cloud or Cloud(endpoint_url=self.url, access_key_id=KEY, secret_access_key="x")
        return self._cloud

    def calls(self) -> list[dict[str, Any]]:
        text = (self.topology.state_dir / "cloud-calls.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def api_fault(self, kind: str, *, actions: list[str], count: int) -> None:
        """The gateway answers the next `count` of these calls, the harness's too, with such a fault."""
        self._control(
            {"api_faults": [{"id": kind, "kind": kind, "actions": actions, "callers": ["harness"], "count": count}]}
        )

    def no_capacity(self, switched_on: bool) -> None:
        """There is no room for any machine to be started, or there is again."""
        self._control({"capacity": {"no_capacity": ["*"] if switched_on else []}})

    def _control(self, wanted: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self.url}/_region/control",
            json.dumps(wanted).encode(),
            {"Content-Type": "application/json", KEY_HEADER: KEY},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200

    def new_plane(self) -> Plane:
        """A plane as a gateway has it that starts over what is there."""
        return Plane(
            topology=self.topology,
            state=State(self.topology.state_dir, clock=self.clock),
            books=self.books,
            journal=cast(Any, self.journal),
            instances=cast(Any, self.instances),
            volumes=cast(Any, self.volumes),
            addresses=cast(Any, self.addresses),
            filters=cast(Any, self.filters),
            guests=PoweredGuests(machines=self.instances),
        )


@contextmanager
def local_site(books: Books, session: boto3.session.Session) -> Iterator[LocalSite]:
    """A fresh region over these books: a gateway, no instance, a VPC of its own. The state folder is the caller's."""
    topology = TOPOLOGY
    books = fresh(books)
    (topology.state_dir / "metadata").mkdir(parents=True)
    site = LocalSite(
        session=session,
        region=REGION_NAME,
        zone=ZONE,
        other_zone=f"{REGION_NAME}b",
        instance_type="m5.large",
        image_id=image_id(books),
        subnet_id="",
        subnet=topology.vpc_subnet,
        vpc_id="",
        topology=topology,
        books=books,
        instances=FakeInstances(),
        volumes=FakeVolumes(),
        addresses=FakeAddresses(),
        journal=FakeJournal(),
        filters=FakeFilters(),
        plane=cast(Any, None),
        clock=Clock(),
    )
    site.plane = site.new_plane()
    site.url, stop = serve(site.plane)
    site.vpc_id = site.ec2().create_vpc(CidrBlock=str(site.subnet))["Vpc"]["VpcId"]
    made = site.ec2().create_subnet(VpcId=site.vpc_id, CidrBlock=str(site.subnet), AvailabilityZone=ZONE)
    site.subnet_id = made["Subnet"]["SubnetId"]
    try:
        yield site
    finally:
        site.instances.gate.set()
        stop()
        _release_addresses(site)
        site.close()


def _release_addresses(site: LocalSite) -> None:
    """The next row's addresses are the same ones, out of the same range."""
    for address in site.plane.state.addresses.values():
        with suppress(AwsError):
            site.books.call("DisassociateAddress", {"PublicIp": address.public_ip})
        with suppress(AwsError):
            site.books.call("ReleaseAddress", {"AllocationId": address.allocation_id})


def image_id(books: Books) -> str:
    """The AMI of the name IMAGE, registered once."""
    wanted = {"Filter.1.Name": "name", "Filter.1.Value.1": IMAGE}
    found = next(books.call("DescribeImages", wanted).items("imagesSet"), None)
    if found is not None:
        return found.findtext("imageId") or ""
    made = books.call("RegisterImage", {"Name": IMAGE, "RootDeviceName": "/dev/xvda", "Architecture": "x86_64"})
    return made.root.findtext("imageId") or ""
