"""boto3's own waiters and paginators, unmodified: what they lean on is what AWS answers."""

from __future__ import annotations

from typing import Any

from tests.contract.promises import API, promise
from tests.contract.site import DEVICE, Site, error_of, named

BOTO3 = "https://docs.aws.amazon.com/boto3/latest/guide/"
WAITERS = f"{BOTO3}clients.html"
PAGINATORS = f"{BOTO3}paginators.html"
PAGES = f"{API}API_DescribeInstances.html"


@promise("DescribeInstances", "the waiter instance_running ends when it runs", source=WAITERS)
def test_the_waiter_instance_running(site: Site) -> None:
    made = site.run()["InstanceId"]
    _wait(site, "instance_running", InstanceIds=[made])
    assert site.state(made) == "running"


@promise("DescribeInstances", "the waiter instance_stopped ends when it is stopped", source=WAITERS)
def test_the_waiter_instance_stopped(site: Site, two: tuple[str, str]) -> None:
    site.ec2().stop_instances(InstanceIds=[two[0]])
    _wait(site, "instance_stopped", InstanceIds=[two[0]])
    assert site.state(two[0]) == "stopped"


@promise("DescribeInstances", "the waiter instance_terminated ends when it is terminated", source=WAITERS)
def test_the_waiter_instance_terminated(site: Site, two: tuple[str, str]) -> None:
    site.ec2().terminate_instances(InstanceIds=list(two))
    _wait(site, "instance_terminated", InstanceIds=list(two))
    assert [site.state(i) for i in two] == ["terminated"] * 2


@promise("DescribeInstanceStatus", "the waiter instance_status_ok ends when the checks pass", source=WAITERS)
def test_the_waiter_instance_status_ok(site: Site, two: tuple[str, str]) -> None:
    _wait(site, "instance_status_ok", InstanceIds=list(two))
    told = site.ec2().describe_instance_status(InstanceIds=list(two))["InstanceStatuses"]
    assert [(t["SystemStatus"]["Status"], t["InstanceStatus"]["Status"]) for t in told] == [("ok", "ok")] * 2


@promise("DescribeVolumes", "the waiter volume_available ends when it is free", source=WAITERS)
def test_the_waiter_volume_available(site: Site, two: tuple[str, str]) -> None:
    made = site.ec2().create_volume(AvailabilityZone=site.zone, Size=1)["VolumeId"]
    _wait(site, "volume_available", VolumeIds=[made])
    site.attach(made, two[0])
    site.ec2().detach_volume(VolumeId=made)
    _wait(site, "volume_available", VolumeIds=[made])
    assert site.volume(made)["Attachments"] == []


@promise("DescribeVolumes", "the waiter volume_in_use ends when it is attached", source=WAITERS)
def test_the_waiter_volume_in_use(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device=DEVICE)
    _wait(site, "volume_in_use", VolumeIds=[volume_id])
    assert site.volume(volume_id)["State"] == "in-use"


@promise("DescribeVolumes", "the waiter volume_deleted ends when it is unknown", source=WAITERS)
def test_the_waiter_volume_deleted(site: Site) -> None:
    volume_id = site.new_volume()
    site.ec2().delete_volume(VolumeId=volume_id)
    _wait(site, "volume_deleted", VolumeIds=[volume_id])
    assert error_of(site.ec2().describe_volumes, VolumeIds=[volume_id]) == "InvalidVolume.NotFound"


@promise("DescribeInstances", "pages hold every instance once, with the states of now", source=PAGINATORS)
def test_pages_of_instances(site: Site) -> None:
    ids = [site.run(TagSpecifications=named("instance", f"p{n}"))["InstanceId"] for n in range(7)]
    for instance_id in ids:
        site.wait_instance(instance_id, "running")
    site.stop(ids[3])
    filters: Any = [{"Name": "vpc-id", "Values": [site.vpc_id]}]
    pages = list(_pages(site, "describe_instances", Filters=filters, PageSize=5))
    found = [(i["InstanceId"], i["State"]["Name"]) for p in pages for r in p["Reservations"] for i in r["Instances"]]
    assert len(pages) == 2
    assert sorted(found) == sorted((i, "stopped" if i == ids[3] else "running") for i in ids)


@promise("DescribeInstances", "pages and a filter by state go together", source=PAGES)
def test_pages_of_instances_in_a_state(site: Site) -> None:
    ids = [site.run()["InstanceId"] for _ in range(7)]
    for instance_id in ids:
        site.wait_instance(instance_id, "running")
    site.stop(ids[0])
    filters: Any = [{"Name": "vpc-id", "Values": [site.vpc_id]}, {"Name": "instance-state-name", "Values": ["running"]}]
    pages = _pages(site, "describe_instances", Filters=filters, PageSize=5)
    found = [i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]]
    assert sorted(found) == sorted(ids[1:])


@promise("DescribeVolumes", "pages hold every volume once, with its attachment", source=PAGINATORS)
def test_pages_of_volumes(site: Site, two: tuple[str, str]) -> None:
    made = [site.new_volume(TagSpecifications=named("volume", site.vpc_id)) for _ in range(7)]
    site.attach(made[2], two[0])
    filters: Any = [{"Name": "tag:Name", "Values": [site.vpc_id]}]
    pages = list(_pages(site, "describe_volumes", Filters=filters, PageSize=5))
    found = {v["VolumeId"]: v["State"] for page in pages for v in page["Volumes"]}
    assert sum(len(page["Volumes"]) for page in pages) == 7
    assert found == {volume_id: "in-use" if volume_id == made[2] else "available" for volume_id in made}


@promise("DescribeVolumes", "a page is no longer than MaxResults", source=f"{API}API_DescribeVolumes.html")
def test_a_page_of_volumes_is_no_longer_than_asked_for(site: Site) -> None:
    for _ in range(6):
        site.ec2().create_volume(AvailabilityZone=site.zone, Size=1)
    page = site.ec2().describe_volumes(MaxResults=5)
    assert len(page["Volumes"]) == 5 and page["NextToken"]


@promise("DescribeSecurityGroups", "pages hold every group once", source=PAGINATORS)
def test_pages_of_security_groups(site: Site) -> None:
    made = {site.group(f"group-{number}") for number in range(7)}
    filters: Any = [{"Name": "vpc-id", "Values": [site.vpc_id]}]
    pages = list(_pages(site, "describe_security_groups", Filters=filters, PageSize=5))
    found = [group["GroupId"] for page in pages for group in page["SecurityGroups"]]
    assert len(found) == 8, "the VPC's default group too"
    assert made < set(found)


def _wait(site: Site, name: str, **ids: Any) -> None:
    patience: Any = {"Delay": max(site.every_s, 0.02), "MaxAttempts": 400}
    site.client("ec2").get_waiter(name).wait(WaiterConfig=patience, **ids)


def _pages(site: Site, name: str, *, PageSize: int, **params: Any) -> Any:
    return site.client("ec2").get_paginator(name).paginate(PaginationConfig={"PageSize": PageSize}, **params)
