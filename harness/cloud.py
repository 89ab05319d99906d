"""Typed calls of EC2 and SSM, bounded waits: the only code of the harness that talks to AWS, or to its stand-in.

The same calls work against the local region and against AWS; today only the local region is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any, Final, cast

from harness.cloud_calls import POLL_S, CloudError, calling, clients
from harness.cloud_commands import CommandResult, run_command
from harness.command import TimedOut, wait_for
from harness.errors import UsageError
from harness.topology import ZONE

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

INSTANCE_TYPE: Final = "m5.large"
OPEN_GROUP = "pbx-chaos"
"""Name of the security group of a cell's nodes: what reaches them is the business of scenarios, not of the cell."""

DEVICE = "/dev/sdf"
"""Where the data volume is attached; the name a guest sees differs (Nitro), agents resolve by volume id."""

UNSEEN_S = 5.0
"""How long what was made a moment ago is looked for. AWS gives no bound ("Eventual consistency")."""


@dataclass(frozen=True, kw_only=True)
class VolumeAttachment:
    """Where a volume is: instance, device name, `attaching`, `attached`, `detaching`, or `busy` (to be detached, but
    its guest has it mounted)."""

    instance_id: str
    device: str
    state: str


@dataclass(frozen=True, kw_only=True)
class ElasticIp:
    """An allocated public address."""

    allocation_id: str
    public_ip: str


class Cloud:
    """EC2 as the harness uses it. Calls are made once, never retried behind the caller's back."""

    def __init__(self, *, endpoint_url: str | None, access_key_id: str, secret_access_key: str) -> None:
        if endpoint_url is None:
            raise UsageError("real AWS is not supported by this version: an endpoint of a local region is needed")
        self._client = clients(
            endpoint_url=endpoint_url, access_key_id=access_key_id, secret_access_key=secret_access_key
        )
        self._ec2: EC2Client = self._client("ec2")

    @cached_property
    def _ssm(self) -> Any:
        """Made when it is first needed: few processes send commands."""
        return self._client("ssm")

    def create_network(self, subnet: IPv4Network) -> str:
        """A VPC with one subnet that fills it, and a group that lets everything pass; returns the subnet's id."""
        with calling("CreateVpc"):
            vpc_id = self._ec2.create_vpc(CidrBlock=str(subnet))["Vpc"]["VpcId"]
        with calling("CreateSubnet"):
            made = self._ec2.create_subnet(VpcId=vpc_id, CidrBlock=str(subnet), AvailabilityZone=ZONE)
        with calling("CreateSecurityGroup"):
            group = self._ec2.create_security_group(GroupName=OPEN_GROUP, Description="everything", VpcId=vpc_id)
        with calling("AuthorizeSecurityGroupIngress"):
            everything: Any = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
            self._ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=everything)
        return made["Subnet"]["SubnetId"]

    def image_id(self, name: str) -> str:
        """The AMI of this name."""
        with calling("DescribeImages"):
            found = self._ec2.describe_images(Filters=[{"Name": "name", "Values": [name]}])["Images"]
        if not found:
            raise CloudError("DescribeImages", "InvalidAMIID.NotFound", f"no image is named {name!r}")
        return found[0]["ImageId"]

    def run_instances(
        self,
        private_ips: Mapping[str, str],
        *,
        image: str,
        subnet_id: str,
        timeout_s: float,
        own_public_addresses: bool = False,
    ) -> dict[str, str]:
        """Launch one instance per name, with its private address, all at once; {name: instance id} when all run.

        Their security group is the one that lets everything pass, where the subnet's VPC has it (`create_network`),
        else the VPC's default one. With `own_public_addresses` each gets a public address of its own, for as long as it
        has no Elastic IP.
        """
        image_id, group_ids = self.image_id(image), self._open_group(subnet_id)
        ids: dict[str, str] = {}
        for name, private_ip in private_ips.items():
            with calling("RunInstances"):
                made = self._ec2.run_instances(
                    ImageId=image_id,
                    InstanceType=INSTANCE_TYPE,
                    MinCount=1,
                    MaxCount=1,
                    **_place(subnet_id, private_ip, group_ids, own_public_address=own_public_addresses),
                    TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
                )
            ids[name] = made["Instances"][0]["InstanceId"]
        for name, instance_id in ids.items():
            self._wait_running(instance_id, name, timeout_s)
        return ids

    def launch_like(self, instance_id: str, *, name: str, private_ip: str, timeout_s: float) -> str:
        """Launch one more instance of the kind of `instance_id` (image, type, subnet, groups); its id when it runs."""
        like = self._instance(instance_id)
        with calling("RunInstances"):
            made = self._ec2.run_instances(
                ImageId=like["ImageId"],
                InstanceType=like["InstanceType"],
                MinCount=1,
                MaxCount=1,
                SubnetId=like["SubnetId"],
                SecurityGroupIds=[group["GroupId"] for group in like.get("SecurityGroups", [])],
                PrivateIpAddress=private_ip,
                TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
            )
        launched = made["Instances"][0]["InstanceId"]
        self._wait_running(launched, name, timeout_s)
        return launched

    def instance_state(self, instance_id: str) -> str:
        """pending, running, stopping, stopped, shutting-down or terminated."""
        return str(self._instance(instance_id)["State"]["Name"])

    def stop(self, instance_id: str, *, power_off: bool) -> None:
        """Stop an instance: with `power_off` at once (SkipOsShutdown), otherwise the guest is shut down first."""
        with calling("StopInstances"):
            if power_off:
                self._ec2.stop_instances(InstanceIds=[instance_id], Force=True, SkipOsShutdown=True)
            else:
                self._ec2.stop_instances(InstanceIds=[instance_id])

    def wait_state(self, instance_id: str, *states: str, timeout_s: float) -> str:
        """Until the instance is in one of `states`; returns which. `TimedOut` says what it was instead.

        One that was launched a moment ago may not be seen yet (AWS: "Eventual consistency").
        """
        seen = "nothing"

        def reached() -> str | None:
            nonlocal seen
            try:
                seen = self.instance_state(instance_id)
            except CloudError as error:
                if error.code != "InvalidInstanceID.NotFound":
                    raise
                seen = "not there"
            return seen if seen in states else None

        return wait_for(
            f"{instance_id} {' or '.join(states)}", reached, timeout_s=timeout_s, every_s=POLL_S, last_seen=lambda: seen
        )

    def ensure_started(self, instance_id: str, *, timeout_s: float) -> None:
        """Until the instance runs, starting it when it is stopped. Idempotent; `CloudError` when it is terminated."""
        seen = "nothing"

        def running() -> bool:
            nonlocal seen
            seen = self.instance_state(instance_id)
            if seen == "stopped":
                self._start(instance_id)
            elif seen in ("shutting-down", "terminated"):
                raise CloudError("StartInstances", "IncorrectInstanceState", f"{instance_id} is {seen}")
            return seen == "running"

        wait_for(f"{instance_id} running", running, timeout_s=timeout_s, every_s=POLL_S, last_seen=lambda: seen)

    def terminate(self, instance_id: str, *, power_off: bool = False, timeout_s: float = 60) -> None:
        """Terminate and wait until it is gone, without a shutdown of the guest if `power_off`. Idempotent."""
        with calling("TerminateInstances"):
            if power_off:
                self._ec2.terminate_instances(InstanceIds=[instance_id], Force=True, SkipOsShutdown=True)
            else:
                self._ec2.terminate_instances(InstanceIds=[instance_id])
        self.wait_state(instance_id, "terminated", timeout_s=timeout_s)

    def create_volume(self, *, size_gib: int, timeout_s: float = 30) -> str:
        """A new volume, `available`."""
        with calling("CreateVolume"):
            made = self._ec2.create_volume(AvailabilityZone=ZONE, Size=size_gib, VolumeType="io2", Iops=1000)
        volume_id = made["VolumeId"]
        self._wait_volume(volume_id, "available", lambda place, status: status == "available", timeout_s)
        return volume_id

    def attach(self, volume_id: str, instance_id: str, *, device: str = DEVICE, timeout_s: float = 30) -> None:
        """Attach and wait for `attached`."""
        with calling("AttachVolume"):
            self._ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)
        self._wait_volume(
            volume_id, "attached", lambda place, _: place is not None and place.state == "attached", timeout_s
        )

    def detach(self, volume_id: str, *, force: bool = False, timeout_s: float = 30) -> None:
        """Detach and wait until the volume is `available`."""
        with calling("DetachVolume"):
            self._ec2.detach_volume(VolumeId=volume_id, Force=force)
        self._wait_volume(volume_id, "available", lambda place, _: place is None, timeout_s)

    def grow(self, volume_id: str, *, size_gib: int, timeout_s: float = 60) -> None:
        """Make the volume larger, in use or not; returns when its guests have the new size (`optimizing`)."""
        with calling("ModifyVolume"):
            self._ec2.modify_volume(VolumeId=volume_id, Size=size_gib)
        seen = "nothing"

        def usable() -> bool:
            nonlocal seen
            with calling("DescribeVolumesModifications"):
                found = self._ec2.describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"]
            seen = str(found[0].get("ModificationState")) if found else "nothing"
            if seen == "failed":
                raise CloudError("ModifyVolume", "failed", found[0].get("StatusMessage", ""))
            return seen in ("optimizing", "completed")

        wait_for(f"{volume_id} larger", usable, timeout_s=timeout_s, every_s=POLL_S, last_seen=lambda: seen)

    def volume_status(self, volume_id: str) -> str:
        """ok, impaired or insufficient-data."""
        with calling("DescribeVolumeStatus"):
            found = self._ec2.describe_volume_status(VolumeIds=[volume_id])["VolumeStatuses"]
        return str(found[0]["VolumeStatus"]["Status"])

    def volume_attachment(self, volume_id: str) -> VolumeAttachment | None:
        """Where the volume is now."""
        return self._volume(volume_id)[0]

    def delete_volume(self, volume_id: str) -> None:
        with calling("DeleteVolume"):
            self._ec2.delete_volume(VolumeId=volume_id)

    def allocate_address(self) -> ElasticIp:
        """A new Elastic IP, once Describe calls show it."""
        with calling("AllocateAddress"):
            made = self._ec2.allocate_address(Domain="vpc")
        wait_for(f"{made['PublicIp']}", lambda: self._is_seen(made["AllocationId"]), timeout_s=30, every_s=POLL_S)
        return ElasticIp(allocation_id=made["AllocationId"], public_ip=made["PublicIp"])

    def address_owner(self, allocation_id: str) -> str | None:
        """Id of the instance that has the Elastic IP, or None."""
        return cast("str | None", self._address(allocation_id).get("InstanceId") or None)

    def associate(self, allocation_id: str, instance_id: str) -> None:
        """Give the Elastic IP to an instance, whoever has it now."""
        with calling("AssociateAddress"):
            self._ec2.associate_address(AllocationId=allocation_id, InstanceId=instance_id, AllowReassociation=True)

    def disassociate(self, allocation_id: str) -> None:
        """Take the Elastic IP from whoever has it. Idempotent."""
        association_id = self._address(allocation_id).get("AssociationId")
        if association_id:
            with calling("DisassociateAddress"):
                self._ec2.disassociate_address(AssociationId=association_id)

    def run_command(self, instance_id: str, commands: Sequence[str], *, timeout_s: int) -> CommandResult:
        """Run a shell script as root on a node by SSM, for at most `timeout_s`; `TimedOut` when no end is told.

        A node that is off or can't be reached does not get it; then this waits in vain.
        """
        return run_command(self._ssm, instance_id, commands, timeout_s=timeout_s)

    def _wait_running(self, instance_id: str, name: str, timeout_s: float) -> None:
        state = self.wait_state(instance_id, "running", "shutting-down", "terminated", timeout_s=timeout_s)
        if state != "running":
            why = self._instance(instance_id).get("StateReason", {}).get("Message") or "no reason given"
            raise CloudError("RunInstances", "Server.InternalError", f"{name} is {state} at launch: {why}")

    def _start(self, instance_id: str) -> None:
        """Start it, unless somebody else's call came in between: then its state has changed, and is looked at again."""
        try:
            with calling("StartInstances"):
                self._ec2.start_instances(InstanceIds=[instance_id])
        except CloudError as error:
            if error.code != "IncorrectInstanceState":
                raise

    def _instance(self, instance_id: str) -> Mapping[str, Any]:
        with calling("DescribeInstances"):
            answer = self._ec2.describe_instances(InstanceIds=[instance_id])
        return cast("Mapping[str, Any]", answer["Reservations"][0]["Instances"][0])

    def _open_group(self, subnet_id: str) -> list[str]:
        """The id of the group that lets everything pass in this subnet's VPC, if it has one."""
        with calling("DescribeSubnets"):
            vpc_id = self._ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"][0]["VpcId"]
        filters: Any = [{"Name": "vpc-id", "Values": [vpc_id]}, {"Name": "group-name", "Values": [OPEN_GROUP]}]

        def seen() -> list[str]:
            with calling("DescribeSecurityGroups"):
                found = self._ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
            return [group["GroupId"] for group in found]

        try:  # one that was made a moment ago may not be seen yet
            return wait_for("the open group", seen, timeout_s=UNSEEN_S, every_s=POLL_S)
        except TimedOut:
            return []

    def _wait_volume(self, volume_id: str, what: str, good: Any, timeout_s: float) -> None:
        seen: tuple[VolumeAttachment | None, str] = (None, "nothing")

        def reached() -> bool:
            nonlocal seen
            try:
                seen = self._volume(volume_id)
            except CloudError as error:
                if error.code != "InvalidVolume.NotFound":  # one that was made a moment ago may not be seen yet
                    raise
                return False
            return bool(good(*seen))

        wait_for(f"{volume_id} {what}", reached, timeout_s=timeout_s, every_s=POLL_S, last_seen=lambda: str(seen))

    def _volume(self, volume_id: str) -> tuple[VolumeAttachment | None, str]:
        with calling("DescribeVolumes"):
            volume = self._ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
        for row in volume.get("Attachments", []):
            place = VolumeAttachment(instance_id=row["InstanceId"], device=row["Device"], state=row["State"])
            return place, volume["State"]
        return None, volume["State"]

    def _is_seen(self, allocation_id: str) -> bool:
        """Whether DescribeAddresses knows the Elastic IP already (AWS: "Eventual consistency")."""
        try:
            self._address(allocation_id)
        except CloudError as error:
            if error.code != "InvalidAllocationID.NotFound":
                raise
            return False
        return True

    def _address(self, allocation_id: str) -> Mapping[str, Any]:
        with calling("DescribeAddresses"):
            found = self._ec2.describe_addresses(AllocationIds=[allocation_id])["Addresses"]
        return cast("Mapping[str, Any]", found[0])


def _place(subnet_id: str, private_ip: str, group_ids: list[str], *, own_public_address: bool) -> dict[str, Any]:
    """Where an instance is to be, as parameters of RunInstances."""
    where = {"SubnetId": subnet_id, "PrivateIpAddress": private_ip}
    if not own_public_address:
        return {**where, "SecurityGroupIds": group_ids} if group_ids else dict(where)
    groups = {"Groups": group_ids} if group_ids else {}
    return {"NetworkInterfaces": [{"DeviceIndex": 0, "AssociatePublicIpAddress": True, **where, **groups}]}
