"""Real AWS as a place for the contract: one VPC for the session, and everything that a row made is gone after it.

Reached only through `guard.refusal`. What the rows make is removed row by row, the VPC at the end; everything carries
the tag TAG, by which the leavings of a run that was killed are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

import boto3
from botocore.exceptions import ClientError, WaiterError

from tests.contract.site import Site

TAG = "pbx-chaos-contract"
SUBNET = IPv4Network("10.77.0.0/24")
INSTANCE_TYPE = "t3.nano"
"""Nitro, the cheapest: a row has two of them for a minute or two."""

PATIENCE_S = 600.0
TAGGED = {
    "RunInstances": "instance",
    "CreateVolume": "volume",
    "AllocateAddress": "elastic-ip",
    "CreateSecurityGroup": "security-group",
    "CreateNetworkAcl": "network-acl",
    "CreateRouteTable": "route-table",
}
"""Calls that make something, and what its type is called in a tag specification."""

IMAGE = "al2023-ami-2023.*-kernel-6.1-x86_64"


@dataclass(kw_only=True)
class AwsAccount:
    """The VPC of this session in somebody's account. `instances` and `others` remove what this row made."""

    session: boto3.session.Session
    region: str
    image_id: str
    vpc_id: str
    subnet_id: str
    zones: tuple[str, str]
    endpoint_url: str | None = None
    instance_type: str = INSTANCE_TYPE
    every_s: float = 3.0
    instances: list[Callable[[Any], object]] = field(default_factory=list)
    others: list[Callable[[Any], object]] = field(default_factory=list)

    @contextmanager
    def site(self) -> Iterator[Site]:
        """A row's place; whatever it makes with the site's clients is removed afterwards."""
        site = Site(
            session=self.session,
            region=self.region,
            zone=self.zones[0],
            other_zone=self.zones[1],
            instance_type=self.instance_type,
            image_id=self.image_id,
            subnet_id=self.subnet_id,
            subnet=SUBNET,
            vpc_id=self.vpc_id,
            url=self.endpoint_url,
            patience_s=PATIENCE_S,
            every_s=self.every_s,
        )
        events = site.ec2().meta.events
        events.register("provide-client-params.ec2", _tagged)
        events.register("after-call.ec2", self._remember)
        try:
            yield site
        finally:
            self.remove_made(site.ec2())

    def _remember(self, model: Any, parsed: Any, **_: Any) -> None:
        """What a call made, as the step that removes it; calls that were refused made nothing."""
        if model.name == "RunInstances" and parsed.get("Instances"):
            ids = [made["InstanceId"] for made in parsed["Instances"]]
            self.instances.append(lambda ec2: _terminate(ec2, ids))
        elif model.name == "CreateVolume" and "VolumeId" in parsed:
            self.others.append(lambda ec2: _delete_volume(ec2, parsed["VolumeId"]))
        elif model.name == "AllocateAddress" and "AllocationId" in parsed:
            self.others.append(lambda ec2: ec2.release_address(AllocationId=parsed["AllocationId"]))
        elif model.name == "CreateSecurityGroup" and "GroupId" in parsed:
            self.others.append(lambda ec2: ec2.delete_security_group(GroupId=parsed["GroupId"]))
        elif model.name == "CreateNetworkAcl" and "NetworkAcl" in parsed:
            self.others.append(lambda ec2: ec2.delete_network_acl(NetworkAclId=parsed["NetworkAcl"]["NetworkAclId"]))
        elif model.name == "CreateRouteTable" and "RouteTable" in parsed:
            self.others.append(lambda ec2: ec2.delete_route_table(RouteTableId=parsed["RouteTable"]["RouteTableId"]))

    def remove_made(self, ec2: Any) -> None:
        """Instances first: volumes, addresses and groups are free without them.

        What the row removed itself is no error; what can't be removed is named, after all the rest was removed.
        """
        left = []
        for step in [*self.instances, *reversed(self.others)]:
            try:
                step(ec2)
            except (ClientError, WaiterError) as error:
                if not _gone(error):
                    left.append(str(error))
        self.instances.clear()
        self.others.clear()
        if left:
            raise RuntimeError(f"left in your account, look for the tag {TAG}: {'; '.join(left)}")


@contextmanager
def aws_account(
    session: boto3.session.Session, *, endpoint_url: str | None = None, every_s: float = 3.0
) -> Iterator[AwsAccount]:
    """A VPC, a subnet and its way out for the rows, removed at the end."""
    ec2 = session.client("ec2", endpoint_url=endpoint_url)
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]]
    filters: Any = [{"Name": "name", "Values": [IMAGE]}, {"Name": "state", "Values": ["available"]}]
    images = ec2.describe_images(Owners=["amazon"], Filters=filters)["Images"]
    if len(zones) < 2 or not images:
        raise RuntimeError(f"{session.region_name}: the contract wants two zones and an image {IMAGE}")
    with ExitStack() as undo:
        vpc_id = ec2.create_vpc(CidrBlock=str(SUBNET), TagSpecifications=_tags("vpc"))["Vpc"]["VpcId"]
        undo.callback(ec2.delete_vpc, VpcId=vpc_id)
        made = ec2.create_subnet(
            VpcId=vpc_id, CidrBlock=str(SUBNET), AvailabilityZone=zones[0], TagSpecifications=_tags("subnet")
        )
        subnet_id = made["Subnet"]["SubnetId"]
        undo.callback(ec2.delete_subnet, SubnetId=subnet_id)
        way_out = ec2.create_internet_gateway(TagSpecifications=_tags("internet-gateway"))["InternetGateway"]
        gateway_id = way_out["InternetGatewayId"]
        undo.callback(ec2.delete_internet_gateway, InternetGatewayId=gateway_id)
        ec2.attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc_id)
        undo.callback(ec2.detach_internet_gateway, InternetGatewayId=gateway_id, VpcId=vpc_id)
        yield AwsAccount(
            session=session,
            region=session.region_name or "",
            image_id=max(images, key=lambda found: found["CreationDate"])["ImageId"],
            vpc_id=vpc_id,
            subnet_id=subnet_id,
            zones=(zones[0], zones[1]),
            endpoint_url=endpoint_url,
            every_s=every_s,
        )


def _tags(resource: str) -> Any:
    return [{"ResourceType": resource, "Tags": [{"Key": TAG, "Value": "true"}]}]


def _gone(error: ClientError | WaiterError) -> bool:
    """Whether what was to be removed is not there any more; a waiter wraps EC2's own error."""
    answer = error.response if isinstance(error, ClientError) else error.last_response
    return str(answer.get("Error", {}).get("Code", "")).endswith(".NotFound")


def _tagged(params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
    """The call with our tag on what it makes."""
    if model.name not in TAGGED:
        return params
    others = [spec for spec in params.get("TagSpecifications", []) if spec["ResourceType"] != TAGGED[model.name]]
    same = [tag for spec in params.get("TagSpecifications", []) if spec not in others for tag in spec["Tags"]]
    ours = {"ResourceType": TAGGED[model.name], "Tags": [*same, {"Key": TAG, "Value": "true"}]}
    return {**params, "TagSpecifications": [*others, ours]}


def _terminate(ec2: Any, ids: list[str]) -> None:
    for instance_id in ids:
        for attribute in ("DisableApiStop", "DisableApiTermination"):
            with suppress(ClientError):
                ec2.modify_instance_attribute(InstanceId=instance_id, **{attribute: {"Value": False}})
    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids)


def _delete_volume(ec2: Any, volume_id: str) -> None:
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id])
    ec2.delete_volume(VolumeId=volume_id)
