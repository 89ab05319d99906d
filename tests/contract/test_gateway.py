"""What is the gateway's own, over both kinds of books: its log, and what a gateway before it left behind."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from harness.region import ec2_addresses, ec2_instances, ec2_volumes
from tests.contract.local import LocalSite
from tests.contract.site import error_of


def test_calls_are_logged_by_who_made_them_without_secrets(site: LocalSite, two: tuple[str, str]) -> None:
    spec = site.instances.specs[two[0]]
    site.ec2(spec.access_key_id).describe_addresses()
    assert error_of(site.ec2().delete_volume, VolumeId="vol-00000000") == "InvalidVolume.NotFound"
    assert error_of(site.ec2("nobody").describe_addresses) == "AuthFailure"
    *_, by_node, refused, stranger = site.calls()
    seen = (by_node["who"], by_node["action"], by_node["status"], by_node["error"])
    assert seen == ("a", "DescribeAddresses", 200, None)
    assert (refused["who"], refused["error"]) == ("harness", "InvalidVolume.NotFound")
    assert refused["params"] == {"VolumeId": "vol-00000000"}
    assert (stranger["who"], stranger["status"]) == ("unknown", 401)
    text = (site.topology.state_dir / "cloud-calls.jsonl").read_text()
    assert "Signature" not in text and spec.secret_access_key not in text


def test_a_launch_that_fails_is_journalled(site: LocalSite) -> None:
    site.instances.fail_launch = True
    made = site.run()["InstanceId"]
    site.wait_instance(made, "terminated")
    site.until("the journal", lambda: [row["event"] for row in site.journal.rows] == ["operation_failed"])
    assert site.journal.rows[0]["operation"] == "finish_launch"
    assert "no such image" in site.instance(made)["StateReason"]["Message"]


def test_an_attach_that_fails_leaves_the_volume_free(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.volumes.fail_attach = True
    site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device="/dev/sdf")
    site.wait_volume(volume_id, "available")
    assert site.volume(volume_id)["Attachments"] == []
    site.volumes.fail_attach = False
    site.attach(volume_id, two[1])
    place = site.volumes.attachment(volume_id)
    assert place is not None and place.instance_id == two[1]


def test_a_new_gateway_takes_up_what_the_old_one_left(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id, (allocation_id, public_ip) = site.new_volume(), site.address()
    site.attach(volume_id, two[0])
    site.associate(allocation_id, two[0])
    site.volumes.mounted.add(volume_id)
    site.ec2().detach_volume(VolumeId=volume_id)
    site.plane.close()  # the old gateway is gone: its waiting workers end, the volume stays `detaching`
    state = site.plane.state
    state.put(replace(state.instances[two[1]], transition="stopping", how="power_off"))
    site.addresses.known = {}
    site.volumes.mounted.clear()
    plane = site.new_plane()
    ec2_addresses.resume(plane)
    ec2_instances.resume(plane)
    ec2_volumes.resume(plane)
    site.until("stopped", lambda: site.instances.power(two[1]) == "off")
    site.until("detached", lambda: plane.state.volumes[volume_id].attachment is None)
    assert site.addresses.table() == {IPv4Address(public_ip): site.topology.node_address(1)}
    plane.close()


def test_a_detach_that_the_books_know_of_already_comes_to_its_end(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    site.books.call("DetachVolume", {"VolumeId": volume_id, "InstanceId": two[0]})  # and then the gateway was killed
    site.detach(volume_id)
    assert site.volumes.attachment(volume_id) is None
    assert site.volume(volume_id)["Attachments"] == []


def test_a_detach_that_fails_can_be_asked_for_again(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    site.volumes.fail_detach = True
    site.ec2().detach_volume(VolumeId=volume_id)
    site.until("the journal", lambda: any(r["event"] == "operation_failed" for r in site.journal.rows))
    assert [place["State"] for place in site.volume(volume_id)["Attachments"]] == ["attached"]
    site.volumes.fail_detach = False
    site.detach(volume_id)


def test_a_start_that_somebody_else_overtakes_is_no_error(site: LocalSite, two: tuple[str, str]) -> None:
    site.stop(two[0])
    state = site.plane.state
    state.put(replace(state.instances[two[0]], transition="stopping"))
    site.cloud()._start(two[0])
    state.put(replace(state.instances[two[0]], transition=None))
    site.cloud().ensure_started(two[0], timeout_s=5)
    assert site.state(two[0]) == "running"
