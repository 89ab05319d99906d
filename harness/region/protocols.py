"""What a call must be before it is looked at, and errors as each service words them.

EC2 has an XML of its own, STS the XML of the query protocol, SSM speaks JSON 1.1; a service that is not here is refused
in the protocol that it was asked in. Codes: AWS, "Error codes for the Amazon EC2 API", "Common errors" of STS and SSM.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import cache
from typing import Any

import botocore.exceptions
import botocore.loaders

from harness.region.calls import XML_TYPE, AwsError, Call, Protocol, error_answer, printable

JSON_TYPE = "application/x-amz-json-1.1"
MAX_BODY_BYTES = 1 << 20
"""Of one request; EC2 names no bound for it (ours)."""

TYPES: Mapping[Protocol, str] = {"ec2": XML_TYPE, "query": XML_TYPE, "json": JSON_TYPE}
STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
TARGETS = {"ssm": "AmazonSSM"}


def defect(call: Call, *, method: str, headers: Mapping[str, str]) -> AwsError | None:
    """Why this request is none that can be answered, whoever makes it; None when it can."""
    if method not in ("GET", "POST"):
        return AwsError("MethodNotAllowed", f"The method {method} is not allowed: calls are made by POST.", 405)
    signed = "Authorization" in headers or "X-Amz-Credential" in call.params
    if not signed and call.protocol == "json":
        return AwsError("MissingAuthenticationTokenException", "Missing Authentication Token", 400)
    if not signed:
        return AwsError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    if not call.access_key_id or not call.service:
        code = "IncompleteSignatureException" if call.protocol == "json" else "IncompleteSignature"
        return AwsError(code, "Authorization header requires 'Credential' parameter.", 400)
    if call.defect is not None and call.protocol == "json":
        return AwsError("SerializationException", f"The request is not valid JSON: {call.defect}", 400)
    if call.defect is not None:
        return AwsError("MalformedQueryString", f"The query string contains a syntax error: {call.defect}", 404)
    if not call.action:
        return AwsError("MissingAction", "The request is missing an action or a required parameter.", 400)
    if call.version and operations(call.service) and call.version not in editions(call.service):
        return _no_such_edition(call)
    return None


def _no_such_edition(call: Call) -> AwsError:
    """The error for an edition of the API that there is not (seen in clients' reports; AWS's lists have no code)."""
    if call.protocol == "ec2":
        message = f"The requested version ({call.version[:64]}) of service AmazonEC2 does not exist"
        return AwsError("NoSuchVersion", message, 400)
    message = f"Could not find operation {call.action[:64]} for version {call.version[:64]}"
    return AwsError("InvalidAction", message, 400)


def stranger(protocol: Protocol) -> AwsError:
    """The error for a key that nobody has."""
    if protocol == "json":
        return AwsError("UnrecognizedClientException", "The security token included in the request is invalid.", 400)
    if protocol == "query":
        return AwsError("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    return AwsError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)


def too_large() -> AwsError:
    """The error for a body beyond MAX_BODY_BYTES."""
    return AwsError("RequestEntityTooLarge", f"The request is larger than {MAX_BODY_BYTES} bytes.", 413)


def internal_error(protocol: Protocol) -> AwsError:
    """The error for what went wrong here."""
    code = {"json": "InternalServerError", "query": "InternalFailure"}.get(protocol, "InternalError")
    return AwsError(code, "An internal error has occurred", 500)


def refusal(call: Call) -> AwsError:
    """The error for an action that the region does not carry out: AWS knows it, or AWS does not know it either."""
    if call.action in operations(call.service):
        where = f"This region does not carry out {call.action} of {call.service}"
        return AwsError("UnsupportedOperation", f"{where}: nothing has been done (docs/region.md).", 400)
    if call.protocol == "json":
        return AwsError("UnknownOperationException", f"{call.service} has no action {call.action!r}.", 400)
    return AwsError("InvalidAction", f"The action {call.action} is not valid for this web service.", 400)


@cache
def operations(service: str) -> frozenset[str]:
    """The actions that AWS has in a service, by the signing names of botocore's models; none of an unknown service."""
    return frozenset(model(service).get("operations", ()))


@cache
def model(service: str) -> Mapping[str, Any]:
    """AWS's own model of a service, as botocore carries it; empty for an unknown service. (Kept: EC2's has 14 MB.)"""
    try:
        found: Mapping[str, Any] = botocore.loaders.Loader().load_service_model(service, "service-2")
    except (botocore.exceptions.UnknownServiceError, botocore.exceptions.DataNotFoundError):
        return {}
    return found


@cache
def editions(service: str) -> frozenset[str]:
    """The editions of a service's API, by the dates that are their names."""
    found: list[str] = botocore.loaders.Loader().list_api_versions(service, "service-2")
    return frozenset(found)


def failure(call: Call, error: AwsError) -> bytes:
    """The body of an error, in the protocol of the call."""
    if call.protocol == "json":
        return json.dumps({"__type": error.code, "message": error.message}).encode()
    if call.protocol == "query":
        root = ET.Element("ErrorResponse", {"xmlns": STS_NAMESPACE} if call.service == "sts" else {})
        detail = ET.SubElement(root, "Error")
        ET.SubElement(detail, "Type").text = "Sender" if error.status < 500 else "Receiver"
        ET.SubElement(detail, "Code").text = error.code
        ET.SubElement(detail, "Message").text = printable(error.message)
        ET.SubElement(root, "RequestId").text = call.request_id
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root)
    return error_answer(call, error)
