"""Eventual consistency: what a Describe call says may be old, for a bounded time, and no decision rests on it."""

from __future__ import annotations

import pytest

from harness.region.timing import Delay, Delays, Timing
from tests.contract.local import LocalSite
from tests.contract.promises import DEV_GUIDE, promise
from tests.contract.site import DEVICE, error_of

SOURCE = f"{DEV_GUIDE}eventual-consistency.html"
WHY = "AWS lags when it likes; here the lag is asked for"
LAG_S = 20.0


@promise(
    "DescribeVolumes", "may show a volume as it was for a bounded time, then as it is", source=SOURCE, local_only=WHY
)
def test_a_volume_as_it_was(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.clock.ahead_s += LAG_S
    site.plane.delays.hold({"consistency": LAG_S})
    site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device=DEVICE)
    site.until("attached", lambda: site.volumes.attachment(volume_id) is not None)
    assert site.volume(volume_id)["State"] == "available"
    site.clock.ahead_s += LAG_S
    site.until("as it is", lambda: site.volume(volume_id)["State"] == "in-use")


@promise("DescribeInstances", "may show a change of state later than it happened", source=SOURCE, local_only=WHY)
def test_an_instance_as_it_was(site: LocalSite, two: tuple[str, str]) -> None:
    site.clock.ahead_s += LAG_S
    site.plane.delays.hold({"consistency": LAG_S})
    site.instances.gate.clear()
    site.ec2().stop_instances(InstanceIds=[two[0]])
    assert site.state(two[0]) == "running"
    site.clock.ahead_s += LAG_S + 1
    assert site.state(two[0]) == "stopping"


@promise(
    "DescribeAddresses", "may show the old owner for a bounded time, then the new one", source=SOURCE, local_only=WHY
)
def test_an_address_as_it_was(site: LocalSite, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    site.associate(allocation_id, two[0])
    site.clock.ahead_s += LAG_S
    site.plane.delays.hold({"consistency": LAG_S})
    site.associate(allocation_id, two[1])
    assert site.holder(allocation_id) == two[0]
    site.clock.ahead_s += LAG_S + 1
    assert site.holder(allocation_id) == two[1]


@promise("AttachVolume", "is decided on what is, not on what a Describe call shows", source=SOURCE, local_only=WHY)
def test_decisions_rest_on_what_is(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.clock.ahead_s += LAG_S
    site.plane.delays.hold({"consistency": LAG_S})
    where = {"VolumeId": volume_id, "Device": DEVICE}
    site.ec2().attach_volume(InstanceId=two[0], **where)
    assert site.volume(volume_id)["State"] == "available"
    assert error_of(site.ec2().attach_volume, InstanceId=two[1], **where) == "VolumeInUse"


@promise(
    "DescribeVolumes", "what is older than the bound is never shown, whatever is drawn", source=SOURCE, local_only=WHY
)
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds(site: LocalSite, two: tuple[str, str], seed: int) -> None:
    lag = Delay(median_s=LAG_S / 4, p95_s=LAG_S, max_s=LAG_S, source="ours")
    site.plane.delays = Delays(timing=Timing(name="lag", delay={"consistency": lag}), seed=seed)
    volume_id = str(site.ec2().create_volume(AvailabilityZone=site.zone, Size=1)["VolumeId"])
    site.until("there", lambda: site.plane.state.volumes.get(volume_id))
    site.clock.ahead_s += LAG_S
    site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device=DEVICE)
    site.clock.ahead_s += LAG_S
    assert {site.volume(volume_id)["State"] for _ in range(20)} == {"in-use"}


@promise("DescribeVolumes", "the same seed lags in the same way", source=SOURCE, local_only=WHY)
def test_the_lag_is_seeded(site: LocalSite, two: tuple[str, str]) -> None:
    lag = Delay(median_s=LAG_S / 2, p95_s=LAG_S, max_s=LAG_S, source="ours")

    def seen(device: str) -> list[str]:
        volume_id = site.new_volume()
        site.clock.ahead_s += LAG_S
        site.plane.delays = Delays(timing=Timing(name="lag", delay={"consistency": lag}), seed=7)
        site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device=device)
        site.until("attached", lambda: site.volumes.attachment(volume_id) is not None)
        site.clock.ahead_s += LAG_S / 2
        told = [site.volume(volume_id)["State"] for _ in range(12)]
        site.plane.delays = Delays()
        return told

    first, second = seen("/dev/sdf"), seen("/dev/sdg")
    assert set(first) == {"available", "in-use"}, "both the past and the present"
    assert first == second
