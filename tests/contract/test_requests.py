"""Requests: who may ask, dry runs, identifiers, client tokens, and the errors that every call can give."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from tests.contract.local import LocalSite
from tests.contract.promises import API, DEV_GUIDE, EC2_GUIDE, ERRORS, promise
from tests.contract.site import DEVICE, Site, error_of, refused

IDEMPOTENCY = f"{DEV_GUIDE}ec2-api-idempotency.html"
FILTERING = f"{EC2_GUIDE}Using_Filtering.html"
THROTTLING = f"{DEV_GUIDE}ec2-api-throttling.html"
LOCAL_FAULT = "AWS gives this error when it likes; here it is asked for"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@promise("StopInstances", "a dry run that may pass answers DryRunOperation, 412, and does nothing", source=ERRORS)
def test_a_dry_run_does_nothing(site: Site, two: tuple[str, str]) -> None:
    error = refused(site.ec2().stop_instances, InstanceIds=[two[0]], DryRun=True)
    assert error.response["Error"]["Code"] == "DryRunOperation"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert site.state(two[0]) == "running"


@promise("RunInstances, CreateVolume, AllocateAddress", "a dry run makes nothing", source=ERRORS)
def test_a_dry_run_makes_nothing(site: Site) -> None:
    assert error_of(site.run, DryRun=True) == "DryRunOperation"
    assert error_of(site.ec2().create_volume, AvailabilityZone=site.zone, Size=1, DryRun=True) == "DryRunOperation"
    assert error_of(site.ec2().allocate_address, DryRun=True) == "DryRunOperation"
    filters: Any = [{"Name": "vpc-id", "Values": [site.vpc_id]}, {"Name": "instance-state-name", "Values": ["pending"]}]
    assert site.ec2().describe_instances(Filters=filters)["Reservations"] == []


@promise("AttachVolume, AssociateAddress", "a dry run changes no owner", source=ERRORS)
def test_a_dry_run_changes_no_owner(site: Site, two: tuple[str, str]) -> None:
    volume_id, (allocation_id, _) = site.new_volume(), site.address()
    ec2 = site.ec2()
    where: dict[str, Any] = {"VolumeId": volume_id, "InstanceId": two[0], "Device": DEVICE}
    assert error_of(ec2.attach_volume, DryRun=True, **where) == "DryRunOperation"
    to: dict[str, Any] = {"AllocationId": allocation_id, "InstanceId": two[0]}
    assert error_of(ec2.associate_address, DryRun=True, **to) == "DryRunOperation"
    assert site.volume(volume_id)["State"] == "available" and site.holder(allocation_id) is None


@promise("DescribeInstances, DescribeAddresses, CreateTags", "every call knows a dry run", source=ERRORS)
def test_every_call_knows_a_dry_run(site: Site, two: tuple[str, str]) -> None:
    ec2 = site.ec2()
    assert error_of(ec2.describe_instances, DryRun=True) == "DryRunOperation"
    assert error_of(ec2.describe_addresses, DryRun=True) == "DryRunOperation"
    tags = [{"Key": "cluster", "Value": "pbx"}]
    assert error_of(ec2.create_tags, Resources=[two[0]], Tags=tags, DryRun=True) == "DryRunOperation"


@promise(
    "StopInstances, AttachVolume",
    "a dry run of a request that can't be read is refused like the request itself: permissions are all it asks for",
    source=f"{API}API_StopInstances.html",
)
def test_a_dry_run_has_the_form_of_a_request(site: Site) -> None:
    for params, code in (
        ({"Action": "StopInstances"}, b"MissingParameter"),
        ({"Action": "StopInstances", "InstanceId.1": "pbx-1"}, b"InvalidInstanceID.Malformed"),
        ({"Action": "AttachVolume", "InstanceId": "i-0123456789abcdef0", "Device": DEVICE}, b"MissingParameter"),
        ({"Action": "DescribeInstances", "MaxResults": "5e0"}, b"InvalidParameterValue"),
    ):
        answer = site.query(params.pop("Action"), **params, DryRun="true")
        assert answer.status_code == 400 and b"<Code>" + code + b"</Code>" in answer.content


@promise("any call", "a parameter that the action does not have is refused: UnknownParameter", source=ERRORS)
def test_an_unknown_parameter(site: Site) -> None:
    params = {"InstanceId.1": "i-0123456789abcdef0", "SkipOsShutDown": "true"}
    answer = site.query("StopInstances", **params)
    assert answer.status_code == 400 and b"<Code>UnknownParameter</Code>" in answer.content


@promise(
    "any call",
    "an edition of the API that there is not is refused: NoSuchVersion",
    source=f"{API}Query-Requests.html",
)
def test_an_unknown_edition(site: Site) -> None:
    answer = site.post("Action=DescribeAddresses&Version=2016-11-99")
    assert answer.status_code == 400 and b"<Code>NoSuchVersion</Code>" in answer.content


@promise(
    "any call",
    "what should be a number or a token and is none is refused by a 400",
    source=ERRORS,
)
@pytest.mark.parametrize("value", ["%C2%B2", "%D9%A3", "9" * 5000, "1_0"])
def test_numbers_that_are_none(site: Site, value: str) -> None:
    group, interface, acl = "sg-0123456789abcdef0", "eni-0123456789abcdef0", "acl-0123456789abcdef0"
    for action, params in (
        ("DescribeInstances", {"MaxResults": value}),
        ("DescribeInstances", {"NextToken": value}),
        ("AssignPrivateIpAddresses", {"NetworkInterfaceId": interface, "SecondaryPrivateIpAddressCount": value}),
        ("DeleteNetworkAclEntry", {"NetworkAclId": acl, "Egress": "true", "RuleNumber": value}),
        ("AuthorizeSecurityGroupIngress", {"GroupId": group, "IpProtocol": value, "CidrIp": "0.0.0.0/0"}),
        ("AuthorizeSecurityGroupIngress", {"GroupId": group, "IpProtocol": "tcp", "FromPort": value, "ToPort": "1"}),
    ):
        answer = site.query(action, **params)
        assert answer.status_code == 400, (action, answer.content)


@promise("DescribeInstances, DescribeVolumes, DescribeAddresses", "filters have wildcards", source=FILTERING)
def test_filters_have_wildcards(site: Site, two: tuple[str, str]) -> None:
    ec2, volume_id = site.ec2(), site.new_volume()
    allocation_id, public_ip = site.address()
    site.associate(allocation_id, two[0])

    def instances(**wanted: str) -> list[str]:
        filters = [one_filter("vpc-id", site.vpc_id), *(one_filter(n.replace("_", "-"), v) for n, v in wanted.items())]
        found = ec2.describe_instances(Filters=cast(Any, filters))["Reservations"]
        return sorted(i["InstanceId"] for r in found for i in r["Instances"])

    assert instances(instance_state_name="run*") == sorted(two)
    assert instances(instance_state_name=r"run\*") == instances(instance_state_name="runnin") == []
    assert instances(instance_id=f"{two[0][:-1]}?", ip_address=f"{public_ip[:-1]}?") == [two[0]]
    addresses = ec2.describe_addresses(Filters=cast(Any, [one_filter("instance-id", f"{two[0][:6]}*")]))["Addresses"]
    assert [a["AllocationId"] for a in addresses] == [allocation_id]
    interfaces: Any = [one_filter("attachment.instance-id", f"*{two[1][4:]}")]
    assert len(ec2.describe_network_interfaces(Filters=interfaces)["NetworkInterfaces"]) == 1
    volumes: Any = [one_filter("status", "avail*"), one_filter("volume-id", f"{volume_id[:-1]}?")]
    assert [v["VolumeId"] for v in ec2.describe_volumes(Filters=volumes)["Volumes"]] == [volume_id]


@promise("DescribeInstances", "two filters of the same name are joined with AND", source=f"{API}API_Filter.html")
def test_two_filters_of_one_name(site: Site, two: tuple[str, str]) -> None:
    def found(*filters: Any) -> list[str]:
        told = site.ec2().describe_instances(Filters=[one_filter("vpc-id", site.vpc_id), *filters])["Reservations"]
        return sorted(i["InstanceId"] for r in told for i in r["Instances"])

    name, other = one_filter("tag:Name", "a"), one_filter("tag:Name", "b")
    assert (found(name), found(other), found(name, other)) == ([two[0]], [two[1]], [])
    running, stopped = (one_filter("instance-state-name", state) for state in ("running", "stopped"))
    assert (found(running, stopped), found(stopped, running)) == ([], [])
    both = {"Name": "instance-state-name", "Values": ["running", "stopped"]}
    assert found(both, running) == sorted(two)


@promise("DescribeInstances", "a filter that there is not is refused, and not for a retry", source=ERRORS)
def test_a_filter_that_is_none(site: Site, two: tuple[str, str]) -> None:
    filters: Any = [one_filter("colour", "red")]
    error = refused(site.ec2().describe_instances, Filters=filters)
    assert error.response["Error"]["Code"] in ("InvalidParameterValue", "UnsupportedOperation")
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def one_filter(name: str, value: str) -> dict[str, Any]:
    return {"Name": name, "Values": [value]}


@promise("any call", "an answer carries a request id of its own", source=f"{DEV_GUIDE}query-api-troubleshooting.html")
def test_answers_have_request_ids(site: Site, two: tuple[str, str]) -> None:
    ids = [
        site.ec2().describe_instances(InstanceIds=[two[0]])["ResponseMetadata"]["RequestId"],
        site.ec2().describe_addresses()["ResponseMetadata"]["RequestId"],
        site.ec2().describe_addresses()["ResponseMetadata"]["RequestId"],
    ]
    assert len(set(ids)) == 3 and all(UUID.fullmatch(found) for found in ids)


@promise("any call", "an error carries code, message and request id", source=ERRORS)
def test_errors_have_request_ids(site: Site) -> None:
    answer = site.query("TerminateInstances", **{"InstanceId.1": "i-0123456789abcdef0"})
    assert answer.status_code == 400
    assert re.search(rb"<Code>InvalidInstanceID.NotFound</Code>\s*<Message>[^<]+</Message>", answer.content)
    assert re.search(rb"<RequestI[Dd]>[0-9a-f-]{36}</RequestI[Dd]>", answer.content)


@promise("any call", "a parameter that is missing is named: MissingParameter", source=ERRORS)
@pytest.mark.parametrize("action", ["StopInstances", "AttachVolume", "CreateVolume"])
def test_a_missing_parameter(site: Site, action: str) -> None:
    answer = site.query(action)
    assert answer.status_code == 400 and b"<Code>MissingParameter</Code>" in answer.content


@promise("any call", "an action that is none is refused: InvalidAction", source=ERRORS)
def test_an_unknown_action(site: Site) -> None:
    answer = site.query("MakeCoffee")
    assert answer.status_code == 400 and b"<Code>InvalidAction</Code>" in answer.content


@promise("any call", "a request without a signature is refused: MissingAuthenticationToken", source=ERRORS)
def test_no_signature(site: Site) -> None:
    answer = site.post("Action=DescribeAddresses&Version=2016-11-15", sign=False)
    assert answer.status_code in (400, 401, 403)
    assert b"<Code>MissingAuthenticationToken</Code>" in answer.content


@promise("any call", "an access key that nobody has is refused: AuthFailure, 401", source=ERRORS)
def test_a_key_that_nobody_has(site: Site) -> None:
    client = site.session.client(
        "ec2",
        endpoint_url=site.url,
        region_name=site.region,
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="x",
    )
    error = refused(client.describe_addresses)
    assert error.response["Error"]["Code"] == "AuthFailure"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 401


@promise("RunInstances", "the same client token again gives the same instance", source=IDEMPOTENCY)
def test_the_same_token_gives_the_same_instance(site: Site) -> None:
    ids = {site.run(ClientToken="once-1", PrivateIpAddress=site.ip(11))["InstanceId"] for _ in range(3)}
    assert len(ids) == 1
    site.wait_instance(ids.pop(), "running")


@promise(
    "RunInstances", "a client token with other parameters is refused: IdempotentParameterMismatch", source=IDEMPOTENCY
)
def test_a_token_with_other_parameters(site: Site) -> None:
    site.run(ClientToken="once-2", PrivateIpAddress=site.ip(11))
    assert error_of(site.run, ClientToken="once-2", PrivateIpAddress=site.ip(12)) == "IdempotentParameterMismatch"


@promise("CreateVolume", "the same client token again gives the same volume", source=IDEMPOTENCY)
def test_the_same_token_gives_the_same_volume(site: Site) -> None:
    assert len({site.new_volume(ClientToken="once-3") for _ in range(3)}) == 1


@promise("CreateVolume", "a client token with another size is refused: IdempotentParameterMismatch", source=IDEMPOTENCY)
def test_a_token_with_another_size(site: Site) -> None:
    site.new_volume(ClientToken="once-4", Size=1)
    assert error_of(site.new_volume, ClientToken="once-4", Size=2) == "IdempotentParameterMismatch"


@promise("RunInstances", "without a client token two calls make two instances", source=IDEMPOTENCY)
def test_two_calls_make_two(site: Site) -> None:
    assert len({site.run()["InstanceId"] for _ in range(2)}) == 2


@promise("any call", "too many requests: RequestLimitExceeded, 503", source=THROTTLING, local_only=LOCAL_FAULT)
def test_throttling(site: LocalSite) -> None:
    site.api_fault("throttle", actions=["DescribeAddresses"], count=1)
    error = refused(site.ec2().describe_addresses)
    assert error.response["Error"]["Code"] == "RequestLimitExceeded"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    site.ec2().describe_addresses()


@promise("any call", "a client that tries again gets through a throttle", source=THROTTLING, local_only=LOCAL_FAULT)
def test_a_retry_gets_through(site: LocalSite) -> None:
    site.api_fault("throttle", actions=["DescribeAddresses"], count=1)
    answer = site.client("ec2", attempts=3).describe_addresses()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1


@promise("any call", "a failure on AWS's side: a code of the 500s", source=ERRORS, local_only=LOCAL_FAULT)
def test_a_failure_of_the_server(site: LocalSite) -> None:
    site.api_fault("server_error", actions=["StopInstances"], count=1)
    error = refused(site.ec2().stop_instances, InstanceIds=["i-0123456789abcdef0"])
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
    assert error.response["Error"]["Code"] in ("InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable")


@promise("any call", "credentials that ran out: RequestExpired or ExpiredToken", source=ERRORS, local_only=LOCAL_FAULT)
def test_expired_credentials(site: LocalSite) -> None:
    site.api_fault("expired_credentials", actions=["*"], count=1)
    assert error_of(site.ec2().describe_addresses) in ("RequestExpired", "ExpiredToken", "AuthFailure")


@promise(
    "AllocateAddress",
    "an answer that is lost is not a call that was not made",
    source=IDEMPOTENCY,
    local_only=LOCAL_FAULT,
)
def test_a_lost_reply(site: LocalSite) -> None:
    site.api_fault("lost_reply", actions=["AllocateAddress"], count=1)
    before = len(site.ec2().describe_addresses()["Addresses"])
    with pytest.raises(Exception, match=r"(?i)connection|closed|reset"):
        site.address()
    assert len(site.ec2().describe_addresses()["Addresses"]) == before + 1


@promise(
    "StartInstances",
    "no room for the machine: InsufficientInstanceCapacity, and it stays stopped",
    source=f"{EC2_GUIDE}troubleshooting-launch.html",
    local_only=LOCAL_FAULT,
)
def test_no_capacity_for_a_start(site: LocalSite, two: tuple[str, str]) -> None:
    site.stop(two[0])
    site.no_capacity(True)
    error = refused(site.ec2().start_instances, InstanceIds=[two[0]])
    assert error.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert site.state(two[0]) == "stopped"
    site.no_capacity(False)
    site.ec2().start_instances(InstanceIds=[two[0]])
    site.wait_instance(two[0], "running")


@promise(
    "RunInstances",
    "no room for the machine: InsufficientInstanceCapacity, and nothing is made",
    source=f"{EC2_GUIDE}troubleshooting-launch.html",
    local_only=LOCAL_FAULT,
)
def test_no_capacity_for_a_launch(site: LocalSite) -> None:
    site.no_capacity(True)
    assert error_of(site.run) == "InsufficientInstanceCapacity"
    assert site.instances.list() == []


@promise("CreateTags", "a resource can be found by a tag that was put on later", source=f"{API}API_CreateTags.html")
def test_tags_put_on_later(site: Site, two: tuple[str, str]) -> None:
    site.ec2().create_tags(Resources=[two[0]], Tags=[{"Key": "cluster", "Value": site.vpc_id}])
    filters: Any = [{"Name": "tag:cluster", "Values": [site.vpc_id]}]
    found = site.ec2().describe_instances(Filters=filters)["Reservations"]
    assert [i["InstanceId"] for r in found for i in r["Instances"]] == [two[0]]


@promise(
    "DescribeAvailabilityZones",
    "the region's zones, with their state",
    source=f"{API}API_DescribeAvailabilityZones.html",
)
def test_the_zones_of_the_region(site: Site) -> None:
    zones = {z["ZoneName"]: z["State"] for z in site.ec2().describe_availability_zones()["AvailabilityZones"]}
    assert zones[site.zone] == "available" and site.other_zone in zones
