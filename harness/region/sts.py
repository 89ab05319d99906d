"""STS: GetCallerIdentity, by which a client learns as whom it calls. Query protocol, 2011-06-15.

AWS: "GetCallerIdentity" (it needs no permission, and can't be denied). A node calls as its instance's role, the harness
as an IAM user.
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from harness.region.calls import BOOKS_ACCOUNT, Call
from harness.region.instances import ROLE
from harness.region.plane import Action, Plane
from harness.region.protocols import STS_NAMESPACE


def get_caller_identity(plane: Plane, call: Call) -> bytes:
    """GetCallerIdentity: account, ARN and unique id of whoever has the key."""
    instance = plane.state.instance_with_key(call.access_key_id)
    if instance is None:
        arn, user_id = f"arn:aws:iam::{BOOKS_ACCOUNT}:user/pbx-chaos", _unique_id("AIDA", "pbx-chaos")
    else:
        arn = f"arn:aws:sts::{BOOKS_ACCOUNT}:assumed-role/{ROLE}/{instance.instance_id}"
        user_id = f"{_unique_id('AROA', ROLE)}:{instance.instance_id}"
    root = ET.Element("GetCallerIdentityResponse", {"xmlns": STS_NAMESPACE})
    result = ET.SubElement(root, "GetCallerIdentityResult")
    for name, text in {"Arn": arn, "UserId": user_id, "Account": BOOKS_ACCOUNT}.items():
        ET.SubElement(result, name).text = text
    ET.SubElement(ET.SubElement(root, "ResponseMetadata"), "RequestId").text = call.request_id
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root)


def _unique_id(prefix: str, name: str) -> str:
    """Twenty-one characters as IAM makes them, always the same for a name."""
    return prefix + hashlib.sha256(name.encode()).hexdigest()[:17].upper()


ACTIONS: Mapping[str, Action] = {"GetCallerIdentity": get_caller_identity}
