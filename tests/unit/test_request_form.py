"""The form of a request: what is told before a dry run is, and what is never left out in silence."""

from __future__ import annotations

import pytest

from harness.region import request_form
from harness.region.calls import AwsError, Call, number
from harness.region.protocols import model
from harness.region.request_form import shape_at

INSTANCE, VOLUME = "i-0123456789abcdef0", "vol-0123456789abcdef0"


def call(action: str, **params: str) -> Call:
    return Call(service="ec2", action=action, params=params, access_key_id="x", source="", request_id="r")


def code_of(action: str, params: dict[str, str]) -> str | None:
    try:
        request_form.check(call(action, **params))
    except AwsError as error:
        assert error.status == 400
        return error.code
    return None


@pytest.mark.parametrize(
    ("action", "params", "code"),
    [
        ("StopInstances", {"DryRun": "true"}, "MissingParameter"),
        ("StopInstances", {"DryRun": "true", "InstanceId.1": "pbx-1"}, "InvalidInstanceID.Malformed"),
        ("StopInstances", {"DryRun": "true", "InstanceId.1": INSTANCE}, None),
        ("StopInstances", {"InstanceId.1": INSTANCE, "SkipOsShutDown": "true"}, "UnknownParameter"),
        ("StopInstances", {"InstanceId.1": INSTANCE, "SkipOsShutdown": "perhaps"}, "InvalidParameterValue"),
        ("StopInstances", {"InstanceId.1": INSTANCE, "Hibernate": "false"}, None),
        ("StopInstances", {"InstanceId": INSTANCE}, "UnknownParameter"),
        ("AttachVolume", {"VolumeId": VOLUME, "InstanceId": INSTANCE}, "MissingParameter"),
        ("AttachVolume", {"VolumeId": "vol-1", "InstanceId": INSTANCE, "Device": "sdf"}, "InvalidVolumeID.Malformed"),
        ("AttachVolume", {"VolumeId": "1", "InstanceId": INSTANCE, "Device": "sdf"}, "InvalidParameterValue"),
        ("DescribeInstances", {"MaxResults": "1²"}, "InvalidParameterValue"),
        ("DescribeInstances", {"MaxResults": "9" * 5000}, "InvalidParameterValue"),
        ("DescribeInstances", {"MaxResults": str(1 << 31)}, "InvalidParameterValue"),
        ("DescribeInstances", {"MaxResult": "5"}, "UnknownParameter"),
        ("DescribeInstances", {"Filter.1.Name": "vpc-id", "Filter.1.Value.1": "a", "Filter.1.Value.2": "b"}, None),
        ("DescribeInstances", {"Filter.1.Name": "vpc-id", "Filter.1.Values.1": "a"}, "UnknownParameter"),
        ("DescribeInstances", {"X-Amz-Date": "now", "Signature": "x", "Timestamp": "now"}, None),
        ("DescribeVolumes", {}, None),
        ("AssignPrivateIpAddresses", {"NetworkInterfaceId": "eni-1", "DryRun": "true"}, None),
        ("RunInstances", {"MinCount": "1", "MaxCount": "1"}, "MissingParameter"),
        ("RunInstances", {"ImageId": "a", "MinCount": "1", "MaxCount": "one"}, "InvalidParameterValue"),
        (
            "RunInstances",
            {"ImageId": "a", "MinCount": "1", "MaxCount": "1", "LaunchTemplate.LaunchTemplateName": "pbx"},
            "UnsupportedOperation",
        ),
        ("DeleteNetworkAclEntry", {"NetworkAclId": "acl-1", "RuleNumber": "٣", "Egress": "1"}, "InvalidParameterValue"),
    ],
)  # fmt: skip
def test_the_form_of_a_request(action: str, params: dict[str, str], code: str | None) -> None:
    assert code_of(action, params) == code


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("IpPermissions.1.Groups.2.GroupId", "String"),
        ("IpPermissions.1.FromPort", "Integer"),
        ("IpPermissions.x.FromPort", None),
        ("IpPermissions.1.FromPort.1", None),
        ("ipPermissions.1.FromPort", None),
        ("", None),
    ],
)
def test_what_a_parameter_is(key: str, shape: str | None) -> None:
    assert shape_at(model("ec2")["shapes"], "AuthorizeSecurityGroupIngressRequest", key) == shape


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-1", -1), ("007", 7), ("", None), ("-", None), ("--1", None), ("²", None), ("٣", None), ("1_0", None),
     (" 1", None), ("1.0", None), ("9" * 10, 9999999999), ("9" * 11, None), ("9" * 5000, None)],
)  # fmt: skip
def test_what_a_whole_number_is(text: str, value: int | None) -> None:
    assert number(text) == value
