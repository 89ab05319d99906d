"""What EC2 promises about volumes, seen by boto3 through the gateway: on a data plane of dictionaries, real books."""

# ruff: noqa: F811  (a fixture and the parameter that asks for it have one name)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from harness.cloud_calls import CloudError
from harness.command import wait_for
from harness.region import ec2_volume_changes, ec2_volumes
from harness.region.plane import Plane
from harness.region.semantics.volume_changes import DAY_S, MOST_PER_DAY
from harness.region.state import Volume
from harness.topology import ZONE
from tests.contract.site import error_of
from tests.integration.ec2_site import (  # noqa: F401  fixtures among them
    Site,
    books,
    described,
    site,
    two,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def shared(site: Site) -> str:
    """A volume with Multi-Attach."""
    volume = site.ec2().create_volume(
        AvailabilityZone=ZONE, Size=4, VolumeType="io2", Iops=1000, MultiAttachEnabled=True
    )
    site.ec2().get_waiter("volume_available").wait(VolumeIds=[volume["VolumeId"]])
    return volume["VolumeId"]


@pytest.fixture
def volume(site: Site) -> str:
    return site.cloud().create_volume(size_gib=4)


@pytest.fixture
def again(site: Site) -> Iterator[Any]:
    """Starts the gateway after `site`'s: a plane over what is there, with all that it takes up again."""
    started: list[Plane] = []

    def start() -> Plane:
        site.plane.close()
        plane = site.new_plane()
        started.append(plane)
        ec2_volumes.resume(plane)
        ec2_volume_changes.resume(plane)
        return plane

    yield start
    for plane in started:
        plane.close()


def seen(site: Site, volume_id: str) -> Any:
    return site.ec2().describe_volumes(VolumeIds=[volume_id])["Volumes"][0]


def modification(site: Site, volume_id: str) -> Any:
    return site.ec2().describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"][0]


def found(site: Site, **filters: str) -> list[str]:
    wanted: Any = [{"Name": name.replace("__", ".").replace("_", "-"), "Values": [v]} for name, v in filters.items()]
    return [v["VolumeId"] for v in site.ec2().describe_volumes(Filters=wanted)["Volumes"]]


def test_a_volume_is_creating_before_it_is_available(site: Site, two: tuple[str, str]) -> None:
    ec2 = site.ec2()
    site.plane.delays.hold({"create": 1.0})
    made = ec2.create_volume(AvailabilityZone=ZONE, Size=1)
    volume_id = made["VolumeId"]
    assert (made["State"], seen(site, volume_id)["State"]) == ("creating", "creating")
    assert volume_id in found(site, status="creating") and volume_id not in found(site, status="available")
    assert error_of(ec2.attach_volume, VolumeId=volume_id, InstanceId=two[0], Device="/dev/sdf") == "IncorrectState"
    assert error_of(ec2.delete_volume, VolumeId=volume_id) == "IncorrectState"
    wait_for("available", lambda: seen(site, volume_id)["State"] == "available", timeout_s=5)


def test_a_volume_of_another_zone_exists_and_is_never_attached_here(site: Site, two: tuple[str, str]) -> None:
    ec2 = site.ec2()
    volume_id = ec2.create_volume(AvailabilityZone="us-east-1b", Size=1)["VolumeId"]
    wait_for("available", lambda: seen(site, volume_id)["State"] == "available", timeout_s=5)
    where = {"VolumeId": volume_id, "InstanceId": two[0], "Device": "/dev/sdf"}
    assert error_of(ec2.attach_volume, **where) == "InvalidVolume.ZoneMismatch"


@pytest.mark.parametrize(
    ("volume_id", "code"),
    [
        ("vol-0123456789abcdef0", "InvalidVolume.NotFound"),
        ("vol-xyz", "InvalidVolumeID.Malformed"),
        ("i-0123456789abcdef0", "InvalidParameterValue"),
    ],
)
def test_ids_of_volumes_are_checked(site: Site, two: tuple[str, str], volume_id: str, code: str) -> None:
    ec2 = site.ec2()
    assert error_of(ec2.describe_volumes, VolumeIds=[volume_id]) == code
    assert error_of(ec2.attach_volume, VolumeId=volume_id, InstanceId=two[0], Device="/dev/sdf") == code
    assert error_of(ec2.modify_volume, VolumeId=volume_id, Size=9) == code
    assert error_of(ec2.describe_volume_status, VolumeIds=[volume_id]) == code


def test_what_can_not_be_created_is_refused(site: Site) -> None:
    create = site.ec2().create_volume
    gp3: Any = {"AvailabilityZone": ZONE, "Size": 4, "VolumeType": "gp3"}
    assert error_of(create, **gp3, MultiAttachEnabled=True) == "InvalidParameterCombination"
    assert error_of(create, **gp3, SnapshotId="snap-0123456789abcdef0") == "UnsupportedOperation"
    assert seen(site, create(**gp3, MultiAttachEnabled=False)["VolumeId"])["MultiAttachEnabled"] is False


def test_a_detach_overtakes_an_attach(site: Site, two: tuple[str, str], volume: str) -> None:
    site.plane.delays.hold({"attach": 1.0})
    site.ec2().attach_volume(VolumeId=volume, InstanceId=two[0], Device="/dev/sdf")
    assert site.ec2().detach_volume(VolumeId=volume)["State"] == "detaching"
    wait_for("gone", lambda: site.cloud().volume_attachment(volume) is None, timeout_s=5)
    site.plane.delays.hold({})
    site.cloud().attach(volume, two[1])
    assert site.volumes.attachments(volume)[0].instance_id == two[1]


@pytest.mark.parametrize("operation", ["attach", "device"])
def test_an_instance_that_is_terminated_meanwhile_gets_nothing(
    site: Site, two: tuple[str, str], volume: str, operation: str
) -> None:
    site.plane.delays.hold({operation: 0.7})
    site.ec2().attach_volume(VolumeId=volume, InstanceId=two[0], Device="/dev/sdf")
    site.cloud().terminate(two[0], timeout_s=5)
    assert seen(site, volume)["State"] == "available"
    site.plane.delays.hold({})
    site.cloud().attach(volume, two[1])
    site.plane.close()  # whoever still waited has ended
    assert [place.instance_id for place in site.volumes.attachments(volume)] == [two[1]]


def test_an_instance_that_is_stopped_meanwhile_has_it_when_it_starts(
    site: Site, two: tuple[str, str], volume: str
) -> None:
    site.plane.delays.hold({"attach": 0.7})
    site.ec2().attach_volume(VolumeId=volume, InstanceId=two[0], Device="/dev/sdf")
    site.cloud().stop(two[0], power_off=True)
    site.cloud().wait_state(two[0], "stopped", timeout_s=5)
    wait_for("attached", lambda: seen(site, volume)["Attachments"][0]["State"] == "attached", timeout_s=5)
    assert site.volumes.attachments(volume) == []
    site.cloud().ensure_started(two[0], timeout_s=5)
    assert [place.instance_id for place in site.volumes.attachments(volume)] == [two[0]]


def test_a_multi_attach_volume_is_with_several_instances(site: Site, two: tuple[str, str], shared: str) -> None:
    ec2 = site.ec2()
    for instance_id in two:
        ec2.attach_volume(VolumeId=shared, InstanceId=instance_id, Device="/dev/sdf")
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[shared])
    wait_for("both", lambda: {a["State"] for a in seen(site, shared)["Attachments"]} == {"attached"}, timeout_s=5)
    assert {a["InstanceId"] for a in seen(site, shared)["Attachments"]} == set(two)
    assert all(shared in found(site, attachment__instance_id=i, attachment__status="attached") for i in two)
    assert found(site, multi_attach_enabled="true", status="in-use") == [shared]
    again: Any = {"VolumeId": shared, "InstanceId": two[0], "Device": "/dev/sdg"}
    assert error_of(ec2.attach_volume, **again) == "VolumeInUse"
    assert error_of(ec2.detach_volume, VolumeId=shared) == "MissingParameter"

    ec2.detach_volume(VolumeId=shared, InstanceId=two[0])
    wait_for("one left", lambda: len(seen(site, shared)["Attachments"]) == 1, timeout_s=5)
    assert [place.instance_id for place in site.volumes.attachments(shared)] == [two[1]]
    has = [shared in {m["Ebs"]["VolumeId"] for m in described(site, i)["BlockDeviceMappings"]} for i in two]
    assert has == [False, True]
    assert error_of(ec2.delete_volume, VolumeId=shared) == "VolumeInUse"
    site.cloud().terminate(two[1], timeout_s=5)
    wait_for("available", lambda: seen(site, shared)["State"] == "available", timeout_s=5)
    site.cloud().delete_volume(shared)


def test_a_volume_grows_while_it_is_attached(site: Site, two: tuple[str, str], volume: str) -> None:
    site.cloud().attach(volume, two[0])
    answer = site.ec2().modify_volume(VolumeId=volume, Size=8, Iops=2000)["VolumeModification"]
    assert (answer["ModificationState"], answer["OriginalSize"], answer["TargetSize"]) == ("modifying", 4, 8)
    wait_for("completed", lambda: modification(site, volume)["ModificationState"] == "completed", timeout_s=5)
    assert (modification(site, volume)["Progress"], modification(site, volume)["TargetIops"]) == (100, 2000)
    assert (seen(site, volume)["Size"], seen(site, volume)["Iops"], site.volumes.sizes_gib[volume]) == (8, 2000, 8)
    assert seen(site, volume)["Attachments"][0]["State"] == "attached"
    assert error_of(site.ec2().modify_volume, VolumeId=volume, Size=7) == "InvalidParameterValue"


def test_growing_returns_when_the_size_is_there_and_fails_when_it_never_will(site: Site, volume: str) -> None:
    site.plane.delays.hold({"optimize": 600.0})
    site.cloud().grow(volume, size_gib=6, timeout_s=5)
    assert site.volumes.sizes_gib[volume] == 6
    other = site.cloud().create_volume(size_gib=4)
    site.volumes.fail_grow = True
    with pytest.raises(CloudError, match="the host is full"):
        site.cloud().grow(other, size_gib=6, timeout_s=5)
    assert site.cloud().volume_status(other) == "ok"


def test_the_new_size_is_there_when_the_volume_is_optimizing(site: Site, volume: str) -> None:
    site.plane.delays.hold({"modify": 0.7, "optimize": 600.0})
    site.ec2().modify_volume(VolumeId=volume, Size=8)
    assert (seen(site, volume)["Size"], site.volumes.sizes_gib[volume]) == (4, 4)
    assert error_of(site.ec2().modify_volume, VolumeId=volume, Size=9) == "IncorrectModificationState"
    wait_for("optimizing", lambda: modification(site, volume)["ModificationState"] == "optimizing", timeout_s=5)
    assert (seen(site, volume)["Size"], site.volumes.sizes_gib[volume]) == (8, 8)
    assert error_of(site.ec2().modify_volume, VolumeId=volume, Size=9) == "IncorrectModificationState"


def test_a_modification_that_fails_leaves_the_volume_as_it_was(site: Site, volume: str) -> None:
    site.volumes.fail_grow = True
    site.ec2().modify_volume(VolumeId=volume, Size=8)
    wait_for("failed", lambda: modification(site, volume)["ModificationState"] == "failed", timeout_s=5)
    assert modification(site, volume)["StatusMessage"] == "the host is full"
    assert seen(site, volume)["Size"] == 4


def test_a_volume_is_modified_four_times_a_day(site: Site, volume: str) -> None:
    modify = site.ec2().modify_volume
    for size in range(5, 5 + MOST_PER_DAY):
        modify(VolumeId=volume, Size=size)
        wait_for("completed", lambda: modification(site, volume)["ModificationState"] == "completed", timeout_s=5)
    assert error_of(modify, VolumeId=volume, Size=100) == "VolumeModificationRateExceeded"
    now_s = site.plane.wall_s()
    site.plane.wall_s = lambda: now_s + DAY_S
    modify(VolumeId=volume, Size=100)


def test_a_volume_that_was_never_modified_has_no_modification(site: Site, volume: str) -> None:
    ec2 = site.ec2()
    assert error_of(ec2.describe_volumes_modifications, VolumeIds=[volume]) == "InvalidVolumeModification.NotFound"
    assert volume not in [m["VolumeId"] for m in ec2.describe_volumes_modifications()["VolumesModifications"]]


def test_a_volume_whose_requests_wait_is_impaired(site: Site, volume: str) -> None:
    ec2 = site.ec2()

    def status() -> str:
        return str(ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"][0]["VolumeStatus"]["Status"])

    assert status() == "ok"
    site.volumes.stalled_s[volume] = 61.0
    assert status() == "impaired"
    impaired: Any = [{"Name": "volume-status.status", "Values": ["impaired"]}]
    assert [v["VolumeId"] for v in ec2.describe_volume_status(Filters=impaired)["VolumeStatuses"]] == [volume]
    ec2.enable_volume_io(VolumeId=volume)
    site.volumes.stalled_s[volume] = 0.0
    assert status() == "ok"


def test_a_new_gateway_finishes_a_growth(site: Site, volume: str, again: Any) -> None:
    site.plane.delays.hold({"modify": 600.0})
    site.ec2().modify_volume(VolumeId=volume, Size=8)
    site.plane.state._save = lambda: None  # type: ignore[method-assign]  # it was killed here
    plane = again()
    wait_for("completed", lambda: plane.state.volumes[volume].modification.state == "completed", timeout_s=5)
    assert (plane.state.volumes[volume].size_gib, site.volumes.sizes_gib[volume]) == (8, 8)


def test_a_new_gateway_gives_the_device_that_was_promised(
    site: Site, two: tuple[str, str], volume: str, again: Any
) -> None:
    site.cloud().attach(volume, two[0])
    site.volumes.places[volume].clear()  # `attached` was said before the guest had it
    again()
    wait_for("the device", lambda: len(site.volumes.attachments(volume)) == 1, timeout_s=5)
    assert [place.instance_id for place in site.volumes.attachments(volume)] == [two[0]]


def test_a_new_gateway_finishes_what_is_creating_or_deleting(site: Site, volume: str, again: Any) -> None:
    other = site.cloud().create_volume(size_gib=1)
    volumes = site.plane.state.volumes
    site.plane.state.put(replace(volumes[volume], creating=True))
    site.plane.state.put(replace(volumes[other], deleting=True))
    plane = again()
    wait_for("available", lambda: not plane.state.volumes[volume].creating, timeout_s=5)
    assert other not in plane.state.volumes and other not in site.volumes.list()


def test_a_new_gateway_makes_books_and_data_plane_agree(
    site: Site, two: tuple[str, str], volume: str, again: Any
) -> None:
    made = site.books.call("CreateVolume", {"AvailabilityZone": ZONE, "Size": "3"}).root.findtext("volumeId") or ""
    unmade = site.books.call("CreateVolume", {"AvailabilityZone": ZONE, "Size": "3"}).root.findtext("volumeId") or ""
    site.volumes.create(made, size_gib=3)  # and then it was killed
    where = {"VolumeId": volume, "InstanceId": two[0], "Device": "/dev/sdf"}
    site.books.call("AttachVolume", where)  # and then it was killed
    plane = again()
    wait_for("available", lambda: not plane.state.volumes[made].creating, timeout_s=5)
    assert plane.state.volumes[made] == Volume(volume_id=made, size_gib=3, zone=ZONE)
    items = {i.findtext("volumeId"): i for i in site.books.call("DescribeVolumes", {}).items("volumeSet")}
    assert unmade not in items
    assert items[volume].findtext("status") == "available"
