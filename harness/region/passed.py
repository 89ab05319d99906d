"""What is left to the books: calls that only read, and records from which nothing follows on the data plane.

An action that is neither here nor carried out by the region is refused. What the books can't answer is refused too, so
that no client takes their trouble for an answer of EC2 that is worth repeating.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from harness.region.calls import AwsError, Call
from harness.region.plane import Plane

READING = ("Describe*", "Get*", "List*")
RECORDS = frozenset(
    {
        "CreateTags", "DeleteTags",
        "CreateVpc", "ModifyVpcAttribute", "CreateSubnet", "ModifySubnetAttribute",
        "RegisterImage", "DeregisterImage", "CreateKeyPair", "ImportKeyPair", "DeleteKeyPair",
    }
)  # fmt: skip


def reads(action: str) -> bool:
    """Whether an action, by its name, changes nothing."""
    return any(fnmatchcase(action, pattern) for pattern in READING)


def to_books(action: str) -> bool:
    """Whether the books may answer this action of EC2."""
    return action in RECORDS or reads(action)


def ask_books(plane: Plane, call: Call) -> bytes:
    """The books' answer, under the request id of this call."""
    return plane.books.call(call.action, call.params).body(call)


def broken(call: Call) -> AwsError:
    """The error for a call on which the books broke, passed to them or carried out here."""
    return AwsError("UnsupportedOperation", f"The books of this region can't answer {call.action} as it was put.", 400)
