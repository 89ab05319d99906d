"""Where a row of the contract runs, as a client of AWS sees it: the same few steps on every backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any, TypeVar, cast

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from harness.command import wait_for
from tests.in_process import KEY

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

API_VERSIONS = {"ec2": "2016-11-15", "sts": "2011-06-15"}
DEVICE = "/dev/sdf"

Found = TypeVar("Found")


@dataclass(kw_only=True)
class Site:
    """A VPC with one subnet, and clients. `patience_s` bounds every wait, `every_s` is how often a wait looks."""

    session: boto3.session.Session
    region: str
    zone: str
    other_zone: str
    instance_type: str
    image_id: str
    subnet_id: str
    subnet: IPv4Network
    vpc_id: str
    url: str | None = None
    patience_s: float = 5
    every_s: float = 0.01
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, key: str = KEY, *, attempts: int = 1) -> Any:
        """A boto3 client that tries once unless told otherwise: a row sees every answer."""
        if (service, key) not in self._clients or attempts > 1:
            local = {"aws_access_key_id": key, "aws_secret_access_key": "x"} if self.url else {}
            made = self.session.client(
                service,  # type: ignore[call-overload]
                endpoint_url=self.url,
                region_name=self.region,
                config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}, read_timeout=10),
                **local,
            )
            if attempts > 1:
                return made
            self._clients[service, key] = made
        return self._clients[service, key]

    def close(self) -> None:
        """Give the connections back: a session of hundreds of rows would run out of descriptors."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def ec2(self, key: str = KEY) -> EC2Client:
        client: EC2Client = self.client("ec2", key)
        return client

    def until(self, what: str, reached: Callable[[], Found | None]) -> Found:
        """What `reached` returns once it is not false."""
        return wait_for(what, reached, timeout_s=self.patience_s, every_s=self.every_s)

    def ip(self, number: int) -> str:
        """A private address of the subnet, by its last part."""
        return str(self.subnet[number])

    def run(self, **more: Any) -> Any:
        """One instance of the row's, as RunInstances answers it."""
        many = {"MinCount": 1, "MaxCount": 1, "SubnetId": self.subnet_id, "InstanceType": self.instance_type}
        return self.ec2().run_instances(**{"ImageId": self.image_id, **many, **more})["Instances"][0]

    def two(self) -> tuple[str, str]:
        """Two running instances, named a and b, at .11 and .12."""
        ids = [
            self.run(PrivateIpAddress=self.ip(number), TagSpecifications=named("instance", name))["InstanceId"]
            for number, name in ((11, "a"), (12, "b"))
        ]
        for instance_id in ids:
            self.wait_instance(instance_id, "running")
        return ids[0], ids[1]

    def with_a_public_address(self) -> str:
        """A running instance that wants a public address of its own (AssociatePublicIpAddress)."""
        nic = {"DeviceIndex": 0, "SubnetId": self.subnet_id, "AssociatePublicIpAddress": True}
        made = self.ec2().run_instances(
            ImageId=self.image_id, MinCount=1, MaxCount=1, InstanceType=cast(Any, self.instance_type),
            NetworkInterfaces=[cast(Any, nic)],
        )  # fmt: skip
        instance_id = made["Instances"][0]["InstanceId"]
        self.wait_instance(instance_id, "running")
        return instance_id

    def instance(self, instance_id: str) -> Any:
        """As DescribeInstances shows it."""
        return self.ec2().describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]

    def state(self, instance_id: str) -> str:
        return str(self.instance(instance_id)["State"]["Name"])

    def wait_instance(self, instance_id: str, state: str) -> None:
        self.until(f"{instance_id} {state}", lambda: self.state(instance_id) == state)

    def stop(self, instance_id: str) -> None:
        """Stopped, power cut, and waited for."""
        self.ec2().stop_instances(InstanceIds=[instance_id], SkipOsShutdown=True)
        self.wait_instance(instance_id, "stopped")

    def terminate(self, instance_id: str) -> None:
        self.ec2().terminate_instances(InstanceIds=[instance_id])
        self.wait_instance(instance_id, "terminated")

    def new_volume(self, **more: Any) -> str:
        """Of one GiB, `available`."""
        made = self.ec2().create_volume(**{"AvailabilityZone": self.zone, "Size": 1, "VolumeType": "gp3", **more})
        volume_id = str(made["VolumeId"])
        self.wait_volume(volume_id, "available")
        return volume_id

    def volume(self, volume_id: str) -> Any:
        """As DescribeVolumes shows it."""
        return self.ec2().describe_volumes(VolumeIds=[volume_id])["Volumes"][0]

    def wait_volume(self, volume_id: str, state: str) -> None:
        self.until(f"{volume_id} {state}", lambda: self.volume(volume_id)["State"] == state)

    def attach(self, volume_id: str, instance_id: str, device: str = DEVICE) -> None:
        """Attached, and waited for."""
        self.ec2().attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)
        self.until(
            f"{volume_id} attached to {instance_id}",
            lambda: (
                (instance_id, "attached")
                in [(place["InstanceId"], place["State"]) for place in self.volume(volume_id)["Attachments"]]
            ),
        )

    def detach(self, volume_id: str) -> None:
        """Detached, and waited for."""
        self.ec2().detach_volume(VolumeId=volume_id)
        self.wait_volume(volume_id, "available")

    def address(self) -> tuple[str, str]:
        """A new Elastic IP: its allocation and itself."""
        made = self.ec2().allocate_address(Domain="vpc")
        return made["AllocationId"], made["PublicIp"]

    def associate(self, allocation_id: str, instance_id: str, **more: Any) -> str:
        made = self.ec2().associate_address(AllocationId=allocation_id, InstanceId=instance_id, **more)
        return made["AssociationId"]

    def holder(self, allocation_id: str) -> str | None:
        """The instance that DescribeAddresses says has it."""
        found = self.ec2().describe_addresses(AllocationIds=[allocation_id])["Addresses"][0]
        return found.get("InstanceId") or None

    def interface(self, instance_id: str) -> str:
        return str(self.instance(instance_id)["NetworkInterfaces"][0]["NetworkInterfaceId"])

    def group(self, name: str = "pbx") -> str:
        """A new security group."""
        made = self.ec2().create_security_group(GroupName=name, Description="contract", VpcId=self.vpc_id)
        return made["GroupId"]

    def post(self, form: str, *, service: str = "ec2", headers: dict[str, str] | None = None, sign: bool = True) -> Any:
        """A request that boto3 would refuse to make: `status_code`, `headers`, `content`."""
        url = self.url or f"https://{service}.{self.region}.amazonaws.com"
        given = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", **(headers or {})}
        request = AWSRequest(method="POST", url=f"{url}/", data=form.encode(), headers=given)
        if sign:
            client = self.client(service)
            SigV4Auth(client._request_signer._credentials, service, self.region).add_auth(request)
        return URLLib3Session(timeout=10).send(request.prepare())

    def query(self, action: str, *, service: str = "ec2", **params: str) -> Any:
        """A signed call of the query protocol with exactly these parameters."""
        form = {"Action": action, "Version": API_VERSIONS[service], **params}
        return self.post("&".join(f"{key}={value}" for key, value in form.items()), service=service)


def named(resource: str, name: str) -> list[dict[str, Any]]:
    """A tag specification with the resource's name."""
    return [{"ResourceType": resource, "Tags": [{"Key": "Name", "Value": name}]}]


def refused(call: Callable[..., object], /, **params: object) -> ClientError:
    """The error that this call gives."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value


def error_of(call: Callable[..., object], /, **params: object) -> str:
    """The code of the error that this call gives."""
    return str(refused(call, **params).response["Error"]["Code"])
