"""The gateway on a data plane of dictionaries and moto in this process: its front, without Docker."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from harness.region.books import Books
from harness.region.control import KEY_HEADER
from harness.region.guest import GuestLost, Ran
from harness.region.plane import Plane
from harness.region.state import Instance, State
from harness.topology import Topology
from tests.in_process import KEY, serve
from tests.planes import FakeAddresses, FakeInstances, FakeJournal, FakeVolumes

NODE_KEY = "node-key"
NODE_ID = "i-0123456789abcdef0"
SIGNED = "AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"


@dataclass(kw_only=True)
class FakeGuests:
    """Scripts run on this host. `deaf` instances hear nothing, those in `dying` are gone when a script has run."""

    deaf: set[str] = field(default_factory=set)
    dying: set[str] = field(default_factory=set)
    killed: list[str] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hold.set()

    def hears(self, instance_id: str) -> bool:
        return instance_id not in self.deaf

    def run(self, instance_id: str, script: str, *, key: str, timeout_s: float, folder: str) -> Ran:
        assert self.hold.wait(10)
        if instance_id in self.dying:
            self.deaf.add(instance_id)
            raise GuestLost(instance_id)
        done = subprocess.run(["sh"], input=script, capture_output=True, text=True, timeout=10, cwd=folder or "/")
        return Ran(code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def kill(self, instance_id: str, *, key: str) -> None:
        self.killed.append(instance_id)
        self.hold.set()


@dataclass(kw_only=True)
class Front:
    """A gateway that answers at `url`, and everything behind it. One node, `pbx-1`, has NODE_KEY."""

    topology: Topology
    books: Books
    plane: Plane
    guests: FakeGuests
    journal: FakeJournal
    url: str = ""
    stop: Callable[[], None] = lambda: None

    def client(self, service: str, key: str = KEY, *, attempts: int = 1, read_timeout_s: float = 10) -> Any:
        config = Config(retries={"total_max_attempts": attempts}, read_timeout=read_timeout_s, max_pool_connections=50)
        return boto3.client(
            cast(Any, service),
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key="x",
            config=config,
        )

    def post(
        self,
        body: bytes | str,
        *,
        key: str | None = KEY,
        service: str = "ec2",
        method: str = "POST",
        path: str = "/",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes, dict[str, str]]:
        """A request as no client makes it: status, body, headers (lower case)."""
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
        signed = {"Authorization": SIGNED.format(key=key, service=service)} if key is not None else {}
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            connection.request(method, path, body, {**form, **signed, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def control(self, wanted: object, *, key: str = KEY) -> tuple[int, Any]:
        status, body, _ = self.post(json.dumps(wanted), path="/_region/control", headers={KEY_HEADER: key})
        return status, json.loads(body)

    def shown(self) -> Any:
        return json.loads(self.post(b"", method="GET", path="/_region/control", headers={KEY_HEADER: KEY})[1])

    def calls(self) -> list[dict[str, Any]]:
        lines = (self.topology.state_dir / "cloud-calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def restart(self) -> None:
        """A gateway that starts over what this one leaves."""
        self.stop()
        self.plane = new_plane(self.topology, self.books, self.guests, self.journal)
        self.url, self.stop = serve(self.plane)


def new_plane(topology: Topology, books: Books, guests: FakeGuests, journal: FakeJournal) -> Plane:
    return Plane(
        topology=topology,
        state=State(topology.state_dir),
        books=books,
        journal=cast(Any, journal),
        instances=cast(Any, FakeInstances(powers={NODE_ID: "on"})),
        volumes=cast(Any, FakeVolumes()),
        addresses=cast(Any, FakeAddresses()),
        guests=guests,
    )


@contextmanager
def front(books: Books, folder: Path) -> Iterator[Front]:
    """A gateway over `books`; STATE_ROOT has to be `folder` already."""
    topology = Topology(cell="frt-front", slot=9)
    assert topology.state_dir.is_relative_to(folder)
    (topology.state_dir / "metadata").mkdir(parents=True)
    guests, journal = FakeGuests(), FakeJournal()
    made = Front(
        topology=topology,
        books=books,
        plane=new_plane(topology, books, guests, journal),
        guests=guests,
        journal=journal,
    )
    made.plane.state.put(
        Instance(
            instance_id=NODE_ID,
            name="pbx-1",
            image="node:test",
            private_ip="198.18.18.11",
            interface_id="eni-1",
            access_key_id=NODE_KEY,
            secret_access_key="x",
        )
    )
    made.url, made.stop = serve(made.plane)
    yield made
    guests.hold.set()
    made.stop()
