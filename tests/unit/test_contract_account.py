"""What the contract makes in somebody's account is gone afterwards, whatever a row did to it (on moto, no AWS)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.contract.aws import TAG, AwsAccount, aws_account

REGION = "eu-west-1"


@pytest.fixture(scope="module")
def session() -> boto3.session.Session:
    return boto3.session.Session(region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "true")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        server.stop()


@pytest.fixture(scope="module")
def account(session: boto3.session.Session, url: str) -> Iterator[AwsAccount]:
    with aws_account(session, endpoint_url=url, every_s=0.01) as made:
        yield made


@pytest.fixture(scope="module")
def ec2(session: boto3.session.Session, url: str) -> Any:
    return session.client("ec2", endpoint_url=url)


def test_what_a_row_made_is_tagged_and_then_gone(account: AwsAccount, ec2: Any) -> None:
    with account.site() as site:
        ids = site.two()
        volume_id, (allocation_id, _), group_id = site.new_volume(), site.address(), site.group()
        site.attach(volume_id, ids[0])
        site.associate(allocation_id, ids[1])
        site.ec2().modify_instance_attribute(InstanceId=ids[0], DisableApiTermination={"Value": True})
        tagged = {i["ResourceId"] for i in _tagged(ec2)}
        assert {*ids, volume_id, allocation_id, group_id} <= tagged
    assert _states(ec2) == ["terminated"] * 2
    assert ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume_id]}])["Volumes"] == []
    assert ec2.describe_addresses()["Addresses"] == []
    assert group_id not in [group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]]


def test_what_a_row_removed_itself_does_not_stop_the_rest(account: AwsAccount, ec2: Any) -> None:
    with account.site() as site:
        volume_id, (allocation_id, _), kept = site.new_volume(), site.address(), site.new_volume()
        site.ec2().delete_volume(VolumeId=volume_id)
        site.ec2().release_address(AllocationId=allocation_id)
    assert kept not in [volume["VolumeId"] for volume in ec2.describe_volumes()["Volumes"]]


def test_a_row_that_fails_leaves_nothing(account: AwsAccount, ec2: Any) -> None:
    with pytest.raises(AssertionError, match="broken"), account.site() as site:
        site.address()
        raise AssertionError("broken")
    assert ec2.describe_addresses()["Addresses"] == []


def test_what_can_not_be_removed_is_named_after_the_rest_is(account: AwsAccount, ec2: Any) -> None:
    with pytest.raises(RuntimeError, match=f"the tag {TAG}.*DependencyViolation"), account.site() as site:
        site.address()
        account.others.append(lambda client: _refuse(client, "sg-in-use"))
    assert ec2.describe_addresses()["Addresses"] == []


def test_at_the_end_the_account_is_as_it_was(session: boto3.session.Session, url: str, ec2: Any) -> None:
    def everything() -> tuple[int, int, int]:
        vpcs, subnets = ec2.describe_vpcs()["Vpcs"], ec2.describe_subnets()["Subnets"]
        return len(vpcs), len(subnets), len(ec2.describe_internet_gateways()["InternetGateways"])

    before = everything()
    with aws_account(session, endpoint_url=url) as made:
        assert made.image_id.startswith("ami-") and everything() != before
    assert everything() == before


def _tagged(ec2: Any) -> list[Any]:
    return list(ec2.describe_tags(Filters=[{"Name": "key", "Values": [TAG]}])["Tags"])


def _states(ec2: Any) -> list[str]:
    found = ec2.describe_instances()["Reservations"]
    return [instance["State"]["Name"] for reservation in found for instance in reservation["Instances"]]


def _refuse(client: Any, group_id: str) -> None:
    """As AWS refuses to delete a group that another one names."""
    raise client.exceptions.ClientError({"Error": {"Code": "DependencyViolation", "Message": group_id}}, "Delete")
