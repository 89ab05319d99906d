"""Instances: their states, who may change them, and what they leave behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.local import LocalSite
from tests.contract.promises import API, DATA_PLANE, EC2_GUIDE, ERRORS, VPC_GUIDE, promise
from tests.contract.site import Site, error_of, named, refused

LIFECYCLE = f"{EC2_GUIDE}ec2-instance-lifecycle.html"
UNKNOWN = "i-0123456789abcdef0"


@promise("RunInstances", "an instance is pending when the call is answered, then running", source=LIFECYCLE)
def test_a_launch_is_pending_then_running(site: Site) -> None:
    made = site.run(PrivateIpAddress=site.ip(11))
    assert (made["State"]["Name"], made["State"]["Code"]) == ("pending", 0)
    site.wait_instance(made["InstanceId"], "running")
    assert site.instance(made["InstanceId"])["State"]["Code"] == 16


@promise(
    "RunInstances",
    "an instance has the private address, type and subnet that were asked for",
    source=f"{API}API_RunInstances.html",
)
def test_an_instance_is_what_was_asked_for(site: Site) -> None:
    made = site.run(PrivateIpAddress=site.ip(11))
    site.wait_instance(made["InstanceId"], "running")
    seen = site.instance(made["InstanceId"])
    assert (seen["PrivateIpAddress"], seen["InstanceType"]) == (site.ip(11), site.instance_type)
    assert (seen["SubnetId"], seen["VpcId"], seen["ImageId"]) == (site.subnet_id, site.vpc_id, site.image_id)


@promise(
    "RunInstances",
    "tags of the call are on the instance and can be filtered by",
    source=f"{EC2_GUIDE}Using_Tags.html",
)
def test_tags_of_a_launch_can_be_filtered_by(site: Site, two: tuple[str, str]) -> None:
    filters: Any = [{"Name": "tag:Name", "Values": ["b"]}, {"Name": "vpc-id", "Values": [site.vpc_id]}]
    found = site.ec2().describe_instances(Filters=filters)["Reservations"]
    running = [i["InstanceId"] for r in found for i in r["Instances"] if i["State"]["Name"] == "running"]
    assert running == [two[1]]


@promise(
    "RunInstances",
    "a machine has the image, name and address of the call, and credentials of its own",
    source=f"{EC2_GUIDE}iam-roles-for-amazon-ec2.html",
    local_only=DATA_PLANE,
)
def test_a_machine_is_made_of_what_was_asked_for(site: LocalSite, two: tuple[str, str]) -> None:
    spec = site.instances.specs[two[0]]
    assert (spec.name, spec.image, spec.private_ip) == ("a", "node:test", site.ip(11))
    assert spec.access_key_id != site.instances.specs[two[1]].access_key_id


@promise(
    "RunInstances",
    "an instance that can't be made goes from pending to terminated and says why",
    source=f"{EC2_GUIDE}troubleshooting-launch.html",
    local_only=DATA_PLANE,
)
def test_a_launch_that_fails_ends_terminated(site: LocalSite) -> None:
    site.instances.fail_launch = True
    instance_id = site.run(PrivateIpAddress=site.ip(11))["InstanceId"]
    site.wait_instance(instance_id, "terminated")
    assert site.instance(instance_id)["StateReason"]["Code"].startswith("Server.")


@promise(
    "RunInstances", "a private address that another instance has is refused: InvalidIPAddress.InUse", source=ERRORS
)
def test_an_address_in_use_is_refused(site: Site, two: tuple[str, str]) -> None:
    assert error_of(site.run, PrivateIpAddress=site.ip(11)) == "InvalidIPAddress.InUse"


@promise(
    "RunInstances",
    "the first four addresses and the last of a subnet are AWS's own: InvalidParameterValue",
    source=f"{VPC_GUIDE}subnet-sizing.html",
)
@pytest.mark.parametrize("number", [0, 1, 3, 255])
def test_reserved_addresses_are_refused(site: Site, number: int) -> None:
    assert error_of(site.run, PrivateIpAddress=site.ip(number)) in ("InvalidParameterValue", "InvalidAddress.Reserved")


@promise("RunInstances", "an address outside the subnet is refused: InvalidParameterValue", source=ERRORS)
def test_an_address_outside_the_subnet_is_refused(site: Site) -> None:
    assert error_of(site.run, PrivateIpAddress="192.0.2.7") == "InvalidParameterValue"


@promise("RunInstances", "an unknown image is refused: InvalidAMIID.NotFound", source=ERRORS)
def test_an_unknown_image_is_refused(site: Site) -> None:
    assert error_of(site.run, ImageId="ami-0123456789abcdef0") == "InvalidAMIID.NotFound"


@promise(
    "RunInstances",
    "a zone that is not the subnet's is refused: InvalidParameterValue",
    source=ERRORS,
)
def test_a_zone_that_is_not_the_subnets_is_refused(site: Site) -> None:
    """The list has the code; that it is this one is what AWS was seen to answer (terraform-provider-aws, #13999)."""
    assert error_of(site.run, Placement={"AvailabilityZone": site.other_zone}) == "InvalidParameterValue"
    site.wait_instance(site.run(Placement={"AvailabilityZone": site.zone})["InstanceId"], "running")


@promise(
    "RunInstances",
    "a subnet with another address block than the cell's is refused in words: UnsupportedOperation",
    source=f"{API}API_RunInstances.html",
    local_only="AWS has as many subnets as one likes",
)
def test_a_subnet_elsewhere_is_refused(site: LocalSite) -> None:
    vpc_id = site.ec2().create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet_id = site.ec2().create_subnet(VpcId=vpc_id, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    error = refused(site.run, SubnetId=subnet_id).response["Error"]
    assert error["Code"] == "UnsupportedOperation" and str(site.subnet) in error["Message"]


@promise(
    "DeleteSubnet", "a subnet with an instance in it stays: DependencyViolation", source=f"{API}API_DeleteSubnet.html"
)
def test_a_subnet_in_use_stays(site: Site) -> None:
    made = site.run()["InstanceId"]
    site.wait_instance(made, "running")
    assert error_of(site.ec2().delete_subnet, SubnetId=site.subnet_id) == "DependencyViolation"
    site.stop(made)
    assert error_of(site.ec2().delete_subnet, SubnetId=site.subnet_id) == "DependencyViolation"
    assert error_of(site.ec2().delete_vpc, VpcId=site.vpc_id) == "DependencyViolation"
    found = site.ec2().describe_subnets(SubnetIds=[site.subnet_id])["Subnets"]
    assert [subnet["SubnetId"] for subnet in found] == [site.subnet_id]


@promise(
    "DeleteSubnet, DeleteVpc",
    "what nothing is in any more can be deleted",
    source=f"{API}API_DeleteVpc.html",
    local_only="deletes the site's own subnet",
)
def test_an_empty_network_can_be_deleted(site: LocalSite) -> None:
    made = site.run()["InstanceId"]
    site.wait_instance(made, "running")
    group_id = site.group()
    site.terminate(made)
    site.ec2().delete_subnet(SubnetId=site.subnet_id)
    assert error_of(site.ec2().delete_vpc, VpcId=site.vpc_id) == "DependencyViolation", "a group is in it"
    site.ec2().delete_security_group(GroupId=group_id)
    site.ec2().delete_vpc(VpcId=site.vpc_id)
    assert error_of(site.ec2().describe_vpcs, VpcIds=[site.vpc_id]) == "InvalidVpcID.NotFound"


@promise(
    "DeleteNetworkInterface",
    "an interface of an instance stays: InvalidParameterValue, or InvalidNetworkInterface.InUse",
    source=ERRORS,
)
def test_an_interface_in_use_stays(site: Site, two: tuple[str, str]) -> None:
    refused = error_of(site.ec2().delete_network_interface, NetworkInterfaceId=site.interface(two[0]))
    assert refused in ("InvalidParameterValue", "InvalidNetworkInterface.InUse")
    assert site.instance(two[0])["NetworkInterfaces"]


@promise("DeleteNetworkInterface", "an unknown one is refused: InvalidNetworkInterfaceID.NotFound", source=ERRORS)
def test_an_unknown_interface_is_not_deleted(site: Site) -> None:
    unknown = error_of(site.ec2().delete_network_interface, NetworkInterfaceId="eni-0123456789abcdef0")
    assert unknown == "InvalidNetworkInterfaceID.NotFound"


@promise(
    "StopInstances",
    "an instance that was not launched for it is not hibernated: UnsupportedHibernationConfiguration",
    source=f"{EC2_GUIDE}hibernating-prerequisites.html",
)
def test_an_instance_is_not_hibernated(site: Site, two: tuple[str, str]) -> None:
    refused = error_of(site.ec2().stop_instances, InstanceIds=[two[0]], Hibernate=True)
    assert refused == "UnsupportedHibernationConfiguration" and site.state(two[0]) == "running"


@promise("DescribeInstances", "an instance tells the client token of its launch", source=f"{API}API_Instance.html")
def test_an_instance_tells_its_client_token(site: Site) -> None:
    made = site.run(ClientToken=f"told-{site.vpc_id}")["InstanceId"]
    filters: Any = [{"Name": "client-token", "Values": [f"told-{site.vpc_id}"]}]
    found = site.ec2().describe_instances(Filters=filters)["Reservations"]
    seen = [(i["InstanceId"], i["ClientToken"]) for r in found for i in r["Instances"]]
    assert seen == [(made, f"told-{site.vpc_id}")]


@promise(
    "RunInstances",
    "a second network interface, which no machine would have, is refused",
    source=f"{API}API_RunInstances.html",
    local_only="AWS has as many as the instance type says",
)
def test_a_second_interface_is_refused(site: LocalSite) -> None:
    cards: Any = [{"DeviceIndex": n, "SubnetId": site.subnet_id} for n in (0, 1)]
    asked: Any = {"ImageId": site.image_id, "MinCount": 1, "MaxCount": 1, "NetworkInterfaces": cards}
    assert error_of(site.ec2().run_instances, **asked) == "UnsupportedOperation"


@promise("RunInstances", "an unknown subnet is refused: InvalidSubnetID.NotFound", source=ERRORS)
def test_an_unknown_subnet_is_refused(site: Site) -> None:
    assert error_of(site.run, SubnetId="subnet-0123456789abcdef0") == "InvalidSubnetID.NotFound"


@promise(
    "RunInstances",
    "MaxCount launches so many instances at once, each with an address of its own",
    source=f"{API}API_RunInstances.html",
)
def test_several_at_once(site: Site) -> None:
    made = site.ec2().run_instances(
        ImageId=site.image_id,
        MinCount=2,
        MaxCount=2,
        SubnetId=site.subnet_id,
        InstanceType=site.instance_type,  # type: ignore[arg-type]
    )["Instances"]
    assert len({instance["InstanceId"] for instance in made}) == 2
    assert len({instance["PrivateIpAddress"] for instance in made}) == 2
    for instance in made:
        site.wait_instance(instance["InstanceId"], "running")


@promise("StopInstances", "the answer says running before and stopping now", source=f"{API}API_StopInstances.html")
def test_a_stop_answers_with_both_states(site: Site, two: tuple[str, str]) -> None:
    answer = site.ec2().stop_instances(InstanceIds=[two[0]])["StoppingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "stopping")
    site.wait_instance(two[0], "stopped")
    assert site.state(two[1]) == "running"


@promise(
    "StopInstances",
    "an instance is stopping until its machine is off",
    source=LIFECYCLE,
    local_only=DATA_PLANE,
)
def test_stopping_until_the_machine_is_off(site: LocalSite, two: tuple[str, str]) -> None:
    site.instances.gate.clear()
    site.ec2().stop_instances(InstanceIds=[two[0]], Force=True)
    assert site.state(two[0]) == "stopping"
    site.instances.gate.set()
    site.wait_instance(two[0], "stopped")
    assert site.instances.power(two[0]) == "off"


@promise(
    "StopInstances",
    "Force alone lets the guest shut down first",
    source=f"{EC2_GUIDE}Stop_Start.html",
    local_only=DATA_PLANE,
)
@pytest.mark.parametrize("force", [False, True])
def test_the_guest_is_shut_down_first(site: LocalSite, two: tuple[str, str], force: bool) -> None:
    site.ec2().stop_instances(InstanceIds=[two[0]], Force=force)
    site.wait_instance(two[0], "stopped")
    assert ("shut_down", two[0]) in site.instances.done and ("power_off", two[0]) not in site.instances.done


@promise(
    "StopInstances",
    "SkipOsShutdown cuts the power without asking the guest",
    source=f"{API}API_StopInstances.html",
    local_only=DATA_PLANE,
)
def test_only_skip_os_shutdown_cuts_the_power(site: LocalSite, two: tuple[str, str]) -> None:
    site.stop(two[0])
    assert site.instances.done[-1] == ("power_off", two[0])


@promise("StopInstances", "stopping what is stopped changes nothing and is no error", source=LIFECYCLE)
def test_a_stop_of_a_stopped_one_changes_nothing(site: Site, two: tuple[str, str]) -> None:
    site.stop(two[0])
    answer = site.ec2().stop_instances(InstanceIds=[two[0]])["StoppingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("stopped", "stopped")


@promise("StopInstances", "a terminated instance is refused: IncorrectInstanceState", source=ERRORS)
def test_a_stop_of_a_terminated_one_is_refused(site: Site, two: tuple[str, str]) -> None:
    site.terminate(two[0])
    assert error_of(site.ec2().stop_instances, InstanceIds=[two[0]]) == "IncorrectInstanceState"


@promise(
    "StopInstances",
    "an instance with stop protection is refused: OperationNotPermitted",
    source=f"{EC2_GUIDE}ec2-stop-protection.html",
)
def test_stop_protection(site: Site, two: tuple[str, str]) -> None:
    site.ec2().modify_instance_attribute(InstanceId=two[0], DisableApiStop={"Value": True})
    assert error_of(site.ec2().stop_instances, InstanceIds=[two[0]]) == "OperationNotPermitted"
    assert site.state(two[0]) == "running"
    site.ec2().modify_instance_attribute(InstanceId=two[0], DisableApiStop={"Value": False})
    site.stop(two[0])


@promise("StopInstances", "one unknown id refuses the whole call and nothing is stopped", source=ERRORS)
def test_ids_are_checked_before_anything_is_touched(site: Site, two: tuple[str, str]) -> None:
    assert error_of(site.ec2().stop_instances, InstanceIds=[two[0], UNKNOWN]) == "InvalidInstanceID.NotFound"
    assert site.state(two[0]) == "running"


@promise(
    "StopInstances",
    "the reason of a stop by API is Client.UserInitiatedShutdown",
    source=f"{API}API_StateReason.html",
)
def test_the_reason_of_a_stop_is_told(site: Site, two: tuple[str, str]) -> None:
    site.stop(two[0])
    seen = site.instance(two[0])
    assert seen["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert seen["StateTransitionReason"].startswith("User initiated")


@promise("StartInstances", "a stopped instance is pending, then running, with its address", source=LIFECYCLE)
def test_a_start_is_pending_then_running(site: Site, two: tuple[str, str]) -> None:
    site.stop(two[0])
    answer = site.ec2().start_instances(InstanceIds=[two[0]])["StartingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("stopped", "pending")
    site.wait_instance(two[0], "running")
    assert site.instance(two[0])["PrivateIpAddress"] == site.ip(11)


@promise("StartInstances", "starting what runs changes nothing and is no error", source=LIFECYCLE)
def test_a_start_of_a_running_one_changes_nothing(site: Site, two: tuple[str, str]) -> None:
    answer = site.ec2().start_instances(InstanceIds=[two[0]])["StartingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "running")


@promise(
    "StartInstances",
    "an instance that is still stopping is refused: IncorrectInstanceState",
    source=ERRORS,
    local_only="needs a machine that is held in its shutdown",
)
def test_a_start_while_stopping_is_refused(site: LocalSite, two: tuple[str, str]) -> None:
    site.instances.gate.clear()
    site.ec2().stop_instances(InstanceIds=[two[0]])
    assert error_of(site.ec2().start_instances, InstanceIds=[two[0]]) == "IncorrectInstanceState"


@promise("StartInstances", "a terminated instance is refused: IncorrectInstanceState", source=ERRORS)
def test_a_start_of_a_terminated_one_is_refused(site: Site, two: tuple[str, str]) -> None:
    site.terminate(two[0])
    assert error_of(site.ec2().start_instances, InstanceIds=[two[0]]) == "IncorrectInstanceState"


@promise("RebootInstances", "a reboot does not leave the state running", source=LIFECYCLE)
def test_a_reboot_stays_running(site: Site, two: tuple[str, str]) -> None:
    site.ec2().reboot_instances(InstanceIds=[two[0]])
    assert site.state(two[0]) == "running"


@promise(
    "RebootInstances",
    "the guest is shut down and booted again",
    source=f"{EC2_GUIDE}ec2-instance-reboot.html",
    local_only=DATA_PLANE,
)
def test_a_reboot_really_happens(site: LocalSite, two: tuple[str, str]) -> None:
    site.ec2().reboot_instances(InstanceIds=[two[0]])
    site.until("reboot", lambda: site.instances.done[-2:] == [("shut_down", two[0]), ("start", two[0])])
    assert site.state(two[0]) == "running"
    assert [what for what, who in site.instances.done if who == two[1]] == ["launch"], "the other one is left alone"


@promise("RebootInstances", "a stopped instance is refused: it has no guest to ask", source=ERRORS)
def test_a_reboot_of_a_stopped_one_is_refused(site: Site, two: tuple[str, str]) -> None:
    site.stop(two[0])
    refused = error_of(site.ec2().reboot_instances, InstanceIds=[two[0]])
    assert refused in ("IncorrectState", "IncorrectInstanceState")  # AWS documents both for such a case


@promise("TerminateInstances", "an instance is shutting-down, then terminated, and stays visible", source=LIFECYCLE)
def test_a_termination(site: Site, two: tuple[str, str]) -> None:
    answer = site.ec2().terminate_instances(InstanceIds=[two[0]])["TerminatingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "shutting-down")
    site.wait_instance(two[0], "terminated")
    assert site.instance(two[0])["State"]["Code"] == 48


@promise("TerminateInstances", "terminating twice is no error", source=f"{API}API_TerminateInstances.html")
def test_a_second_termination_changes_nothing(site: Site, two: tuple[str, str]) -> None:
    site.terminate(two[0])
    answer = site.ec2().terminate_instances(InstanceIds=[two[0]])["TerminatingInstances"][0]
    assert answer["CurrentState"]["Name"] == "terminated"


@promise(
    "TerminateInstances",
    "an instance with termination protection is refused: OperationNotPermitted",
    source=f"{EC2_GUIDE}Using_ChangingDisableAPITermination.html",
)
def test_termination_protection(site: Site, two: tuple[str, str]) -> None:
    site.ec2().modify_instance_attribute(InstanceId=two[0], DisableApiTermination={"Value": True})
    assert error_of(site.ec2().terminate_instances, InstanceIds=[two[0]]) == "OperationNotPermitted"
    assert site.state(two[0]) == "running"


@promise(
    "TerminateInstances",
    "a volume that was attached later stays, available",
    source=f"{EC2_GUIDE}preserving-volumes-on-termination.html",
)
def test_a_volume_outlives_its_instance(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    site.terminate(two[0])
    site.wait_volume(volume_id, "available")
    assert site.volume(volume_id)["Attachments"] == []
    site.attach(volume_id, two[1])
    assert [place["InstanceId"] for place in site.volume(volume_id)["Attachments"]] == [two[1]]


@promise(
    "TerminateInstances",
    "a volume whose DeleteOnTermination is true goes with its instance",
    source=f"{EC2_GUIDE}preserving-volumes-on-termination.html",
)
def test_a_volume_that_goes_with_its_instance(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    mapping: Any = [{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": True}}]
    site.ec2().modify_instance_attribute(InstanceId=two[0], BlockDeviceMappings=mapping)
    site.terminate(two[0])
    filters: Any = [{"Name": "volume-id", "Values": [volume_id]}]
    site.until("deleted", lambda: site.ec2().describe_volumes(Filters=filters)["Volumes"] == [])
    assert error_of(site.ec2().describe_volumes, VolumeIds=[volume_id]) == "InvalidVolume.NotFound"


@promise(
    "TerminateInstances",
    "an Elastic IP stays in the account, with nobody",
    source=f"{EC2_GUIDE}elastic-ip-addresses-eip.html",
)
def test_an_elastic_ip_outlives_its_instance(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    site.associate(allocation_id, two[0])
    site.terminate(two[0])
    assert site.holder(allocation_id) is None
    site.associate(allocation_id, two[1])


@promise(
    "TerminateInstances",
    "a replacement can have the private address of the terminated instance",
    source=f"{EC2_GUIDE}using-instance-addressing.html",
)
def test_a_replacement_gets_the_same_private_address(site: Site, two: tuple[str, str]) -> None:
    site.terminate(two[0])
    replacement = site.run(PrivateIpAddress=site.ip(11), TagSpecifications=named("instance", "a"))["InstanceId"]
    site.wait_instance(replacement, "running")
    assert replacement != two[0]


@promise(
    "DescribeInstances",
    "filtered by state, only instances in that state are told of",
    source=f"{API}API_DescribeInstances.html",
)
def test_instances_by_state(site: Site, two: tuple[str, str]) -> None:
    site.stop(two[0])
    for state, wanted in (("running", two[1]), ("stopped", two[0])):
        filters: Any = [
            {"Name": "instance-state-name", "Values": [state]},
            {"Name": "vpc-id", "Values": [site.vpc_id]},
        ]
        found = site.ec2().describe_instances(Filters=filters)["Reservations"]
        assert [i["InstanceId"] for r in found for i in r["Instances"]] == [wanted]


@promise("DescribeInstances", "an unknown id is refused: InvalidInstanceID.NotFound", source=ERRORS)
def test_an_unknown_instance(site: Site) -> None:
    assert error_of(site.ec2().describe_instances, InstanceIds=[UNKNOWN]) == "InvalidInstanceID.NotFound"


@promise("StopInstances", "an id that can't be one is refused: InvalidInstanceID.Malformed", source=ERRORS)
@pytest.mark.parametrize("instance_id", ["i-zz", "pbx-1", "i-0123456789abcdef0123"])
def test_a_malformed_id(site: Site, instance_id: str) -> None:
    assert error_of(site.ec2().stop_instances, InstanceIds=[instance_id]) == "InvalidInstanceID.Malformed"


@promise(
    "DescribeInstanceStatus",
    "only running instances, unless all are asked for",
    source=f"{API}API_DescribeInstanceStatus.html",
)
def test_the_status_is_of_running_instances(site: Site, two: tuple[str, str]) -> None:
    site.stop(two[0])
    ec2 = site.ec2()
    assert ec2.describe_instance_status(InstanceIds=[two[0]])["InstanceStatuses"] == []
    told = ec2.describe_instance_status(InstanceIds=[two[0]], IncludeAllInstances=True)["InstanceStatuses"]
    assert told[0]["InstanceState"]["Name"] == "stopped"
    assert told[0]["SystemStatus"]["Status"] == "not-applicable"


@promise(
    "DescribeInstanceStatus",
    "both status checks of a healthy instance are ok",
    source=f"{EC2_GUIDE}monitoring-system-instance-status-check.html",
)
def test_the_status_checks_of_a_healthy_one(site: Site, two: tuple[str, str]) -> None:
    def both() -> bool:
        told = site.ec2().describe_instance_status(InstanceIds=[two[0]])["InstanceStatuses"]
        return [(t["SystemStatus"]["Status"], t["InstanceStatus"]["Status"]) for t in told] == [("ok", "ok")]

    site.until("both ok", both)
    (told,) = site.ec2().describe_instance_status(InstanceIds=[two[0]])["InstanceStatuses"]
    assert told["InstanceState"]["Name"] == "running" and told["AvailabilityZone"] == site.zone


@promise(
    "DescribeInstances",
    "an instance whose guest switched itself off is stopped, and can be started",
    source=f"{EC2_GUIDE}Using_ChangingInstanceInitiatedShutdownBehavior.html",
    local_only=DATA_PLANE,
)
def test_a_machine_that_went_off_by_itself_is_stopped(site: LocalSite, two: tuple[str, str]) -> None:
    site.instances.powers[two[0]] = "off"
    assert site.state(two[0]) == "stopped"
    site.ec2().start_instances(InstanceIds=[two[0]])
    site.wait_instance(two[0], "running")
    assert site.instances.power(two[0]) == "on"
