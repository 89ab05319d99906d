"""LocalStack keeps the books: out of everybody's reach but the host's, and no different in what comes out of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest

from harness.cloud import Cloud
from harness.command import run
from harness.errors import HarnessError, InfrastructureError
from harness.region import localstack
from harness.region.books import Books, place_file
from harness.region.calls import BOOKS_ACCOUNT
from harness.region.cleanup import leftovers
from harness.region.credentials import HarnessKey
from harness.region.process import start_client, start_region, stop_region
from harness.region.router import container_pid, router_pid
from harness.topology import REGION_NAME
from tests.integration import slots
from tests.integration.data_plane import localstack_image

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TOPOLOGY = slots.own("lst-region")
IMAGE = "pbx-chaos-node:any"
"""Only a name in the books: no instance is launched here."""


@dataclass(frozen=True, kw_only=True)
class Site:
    key: HarnessKey
    books: Books


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    image = localstack_image()
    stop_region(TOPOLOGY)
    try:
        region = start_region(TOPOLOGY, node_image_names=[IMAGE], localstack_image=image)
        books = Books.read(place_file(TOPOLOGY))
        assert books is not None
        yield Site(key=region.key, books=books)
    finally:
        removed = stop_region(TOPOLOGY)
    assert f"container {TOPOLOGY.cell}-books" in removed and f"network {TOPOLOGY.cell}-books" in removed
    assert leftovers(TOPOLOGY) == []


def test_the_gateway_answers_from_its_books(site: Site) -> None:
    assert site.books.kind == "localstack"
    cloud = Cloud(
        endpoint_url=TOPOLOGY.endpoint_url,
        access_key_id=site.key.access_key_id,
        secret_access_key=site.key.secret_access_key,
    )
    assert cloud.image_id(IMAGE).startswith("ami-")
    assert cloud.allocate_address().public_ip in {str(address) for address in TOPOLOGY.elastic_range}


def test_other_services_pass_and_the_account_is_the_one_of_the_metadata(site: Site) -> None:
    sts = boto3.client(
        "sts",
        endpoint_url=TOPOLOGY.endpoint_url,
        region_name=REGION_NAME,
        aws_access_key_id=site.key.access_key_id,
        aws_secret_access_key=site.key.secret_access_key,
    )
    assert sts.get_caller_identity()["Account"] == BOOKS_ACCOUNT


def test_localstack_has_no_way_out(site: Site) -> None:
    routes = json.loads(_inside(container_pid(f"{TOPOLOGY.cell}-books"), "ip", "-j", "route"))
    assert [route["dst"] for route in routes] == [str(TOPOLOGY.books_subnet)]


def test_nobody_passes_by_the_gateway(site: Site) -> None:
    run(_connect(site.books), timeout_s=5)
    for pid in (router_pid(TOPOLOGY), start_client(TOPOLOGY, 1)):
        with pytest.raises(InfrastructureError):
            _inside(pid, *_connect(site.books))


def test_localstack_that_ends_is_said_with_its_last_words(site: Site) -> None:
    other = slots.own("lst-ends", slots.SECOND)
    other.state_dir.mkdir(parents=True, exist_ok=True)
    try:
        localstack.start(other, localstack_image())
        run(["docker", "kill", f"{other.cell}-books"], timeout_s=10)
        with pytest.raises(InfrastructureError, match="LocalStack ended with 137"):
            localstack.wait(other, place_file(other))
    finally:
        stop_region(other)


def test_one_that_runs_already_is_used_under_an_account_of_its_own_and_left_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALSTACK_HOST", f"{site.books.host}:{site.books.port}")
    other = slots.own("lst-guest", slots.SECOND)
    found = localstack.running(other)
    assert found is not None and found.account == localstack.account_of(other.cell) != BOOKS_ACCOUNT
    try:
        region = start_region(other, node_image_names=["somebody-elses:any"], found=found)
        cloud = Cloud(
            endpoint_url=other.endpoint_url,
            access_key_id=region.key.access_key_id,
            secret_access_key=region.key.secret_access_key,
        )
        assert cloud.image_id("somebody-elses:any").startswith("ami-")
    finally:
        stop_region(other)
    assert localstack.running(other) is not None
    names = [
        item.findtext("name") for item in site.books.call("DescribeImages", {"Owner.1": "self"}).items("imagesSet")
    ]
    assert "somebody-elses:any" not in names


@pytest.mark.parametrize(("given", "words"), [("a:b", "HOST or HOST:PORT"), ("127.0.0.1:9", "no LocalStack answers")])
def test_a_localstack_that_is_not_there_is_said(given: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALSTACK_HOST", given)
    with pytest.raises(HarnessError, match=words):
        localstack.running(TOPOLOGY)


def _inside(pid: int, *argv: str) -> str:
    return run(["nsenter", "-t", str(pid), "-n", *argv], timeout_s=5).stdout


def _connect(books: Books) -> list[str]:
    return ["timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{books.host}/{books.port}"]
