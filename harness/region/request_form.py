"""Whether a request has the form of its action: what has to be there is there, nothing that the action does not know,
and numbers, booleans and ids that are such.

That comes before a dry run is answered: DryRun asks for permissions only ("DryRun", API reference), which AWS can tell
for a request that it can read, whoever and in whatever state its resources are. Which of several flaws is told first is
ours. What an action knows, AWS's own model says, as botocore carries it. Codes: AWS, "Error codes for the Amazon EC2
API" (MissingParameter, UnknownParameter, InvalidParameterValue, …ID.Malformed).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.region.calls import AwsError, Call, is_index, number
from harness.region.protocols import model
from harness.region.semantics.instances import check_instance_id
from harness.region.semantics.volumes import check_volume_id

Shapes = Mapping[str, Mapping[str, Any]]

SIGNING = re.compile(r"Signature(Version|Method)?|AWSAccessKeyId|Timestamp|Expires|SecurityToken|X-Amz-.*")
"""Parameters of any request that is signed in its query."""

ALSO_REQUIRED: Mapping[str, tuple[str, ...]] = {"RunInstances": ("ImageId",)}
"""Beyond AWS's model: there is no launch template that could name an image."""

UNSUPPORTED: Mapping[str, tuple[str, ...]] = {
    "RunInstances": (
        "LaunchTemplate",
        "InstanceMarketOptions",
        "HibernationOptions",
        "Ipv6AddressCount",
        "Ipv6Address",
        "EnablePrimaryIpv6",
        "SecondaryInterface",
        "NetworkInterface.2",
        "NetworkInterface.1.NetworkInterfaceId",
    ),
    "AllocateAddress": ("Address", "PublicIpv4Pool", "CustomerOwnedIpv4Pool", "IpamPoolId"),
    "AssignPrivateIpAddresses": ("Ipv4Prefix", "Ipv4PrefixCount"),
    "UnassignPrivateIpAddresses": ("Ipv4Prefix",),
    "CreateVolume": ("SourceVolumeId", "OutpostArn"),
}
"""Parameters that this region would have to carry out and does not: refused, never silently left out. (`false` is what
they are anyway.)"""

JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "boolean": bool,
    "list": list,
    "map": Mapping,
    "structure": Mapping,
    "timestamp": (int, float, str),
}
"""What a value of a JSON call is, by the type of its shape."""

BITS = {"integer": 31, "long": 63}
"""How large a whole number of a type may be."""


def check(call: Call) -> None:
    """EC2's error for a request that is not of its action's form; of an action that AWS has."""
    shapes: Shapes = model("ec2")["shapes"]
    root = model("ec2")["operations"][call.action].get("input", {}).get("shape", "")
    asked = {key: value for key, value in call.params.items() if not SIGNING.fullmatch(key)}
    for name in (*_required(shapes, root), *ALSO_REQUIRED.get(call.action, ())):
        if not any(value and _is_of(key, name) for key, value in asked.items()):
            raise AwsError("MissingParameter", f"The request must contain the parameter {name}")
    for key, value in asked.items():
        shape = "Boolean" if key == "DryRun" else shape_at(shapes, root, key)
        if shape is None:
            raise AwsError("UnknownParameter", f"The parameter {key[:64]} is not recognized")
        _check_value(shapes[shape]["type"], key, value)
    for key, value in asked.items():
        shape = shape_at(shapes, root, key)
        if shape == "InstanceId" and value:
            check_instance_id(value, [value])  # whether there is one, is not a matter of form
        elif shape == "VolumeId" and value:
            check_volume_id(value, [value])
    for name in UNSUPPORTED.get(call.action, ()):
        if any(_is_below(key, name) and value.lower() not in ("", "false") for key, value in asked.items()):
            raise AwsError("UnsupportedOperation", f"This region does not carry out {name} of {call.action}.")


def check_json(call: Call) -> None:
    """The error of a JSON service for a value of another type than its action's; what it does not know it ignores."""
    described = model(call.service)
    shape = described["operations"][call.action].get("input", {}).get("shape", "")
    wrong = _misfit(described["shapes"], shape, call.data, "the request")
    if wrong is not None:
        raise AwsError("SerializationException", f"{wrong} is of another type.")


def _misfit(shapes: Shapes, shape: str, value: object, name: str) -> str | None:
    """What in a JSON value is not of its shape, by name; None when all is."""
    here = shapes.get(shape, {})
    kind = here.get("type", "structure")
    if value is None:
        return None
    if not isinstance(value, JSON_TYPES.get(kind, object)) or (isinstance(value, bool) and kind != "boolean"):
        return name
    inside: list[tuple[str, object, str]] = []
    if isinstance(value, Mapping) and kind == "map":
        inside = [(here["value"]["shape"], each, f"{name}.{key}") for key, each in value.items()]
    elif isinstance(value, Mapping):
        members = here.get("members", {})
        inside = [(members[key]["shape"], each, key) for key, each in value.items() if key in members]
    elif isinstance(value, list):
        inside = [(here["member"]["shape"], each, f"{name}.{n}") for n, each in enumerate(value)]
        if None in value:
            return name
    found = (_misfit(shapes, of, each, called) for of, each, called in inside)
    return next((wrong for wrong in found if wrong is not None), None)


def shape_at(shapes: Shapes, root: str, key: str) -> str | None:
    """The shape of what a flat parameter says, `Filter.1.Value.2`; None when the action has no such parameter."""
    shape: str | None = root
    for part in key.split("."):
        here = shapes.get(shape or "", {})
        if here.get("type") == "list":
            shape = here["member"]["shape"] if is_index(part) else None
        else:
            shape = {name: member["shape"] for name, member in _members(here)}.get(part)
    return shape


def _required(shapes: Shapes, root: str) -> list[str]:
    here = shapes.get(root, {})
    return [name for name, member in _members(here) if member["of"] in here.get("required", ())]


def _members(shape: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The members of a structure by the names that they have in a request of EC2."""
    for own, member in shape.get("members", {}).items():
        name = member.get("queryName") or member.get("locationName") or own
        yield name[0].upper() + name[1:], {"of": own, "shape": member["shape"]}


def _is_of(key: str, name: str) -> bool:
    """Whether a flat parameter is (a part of) the one called `name`."""
    head, _, rest = key.partition(".")
    return head == name and (not rest or not rest[0].isdigit() or is_index(rest.partition(".")[0]))


def _is_below(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _check_value(kind: str, key: str, value: str) -> None:
    name = key.rpartition(".")[2]
    if kind == "boolean" and value.lower() not in ("true", "false", ""):
        raise AwsError("InvalidParameterValue", f"Invalid value '{value[:64]}' for {name}: it is true or false.")
    if kind in BITS and value:
        found = number(value, digits=19)
        if found is None or not -(1 << BITS[kind]) <= found < 1 << BITS[kind]:
            raise AwsError("InvalidParameterValue", f"Invalid value '{value[:64]}' for {name}: it is a whole number.")
    if kind in ("structure", "list") and value:
        raise AwsError("UnknownParameter", f"The parameter {key[:64]} is not recognized")
