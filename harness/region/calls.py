"""One AWS call as data: read from HTTP, written to the call log without secrets, answered in EC2's own XML.

EC2 speaks the query protocol (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html): a form with
`Action` and flat parameters (`InstanceId.1`, `Filter.1.Value.2`). Of other services only the action's name is read.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, urlsplit

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
XML_TYPE = "text/xml;charset=UTF-8"

_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/,\s]+)/(?P<date>[^/,\s]*)/(?P<region>[^/,\s]*)/(?P<service>[^/,\s]*)")
_SECRET = re.compile(r"signature|secret|password|token$|^x-amz-|^awsaccesskeyid$", re.IGNORECASE)

BOOKS_ACCOUNT = "123456789012"
"""The one account of the region, and the access key under which both kinds of books keep it: LocalStack takes a key of
twelve digits for the account itself, moto has this account for any key."""

Tree = Mapping[str, Any]
"""XML as data: a value is text, a bool, a mapping (element), or a list of mappings (`<item>` each)."""


class AwsError(Exception):
    """An error as EC2 would answer it: code and message of its documentation, HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request: who asked for what. `params` are the flat query parameters without Action and Version."""

    service: str
    action: str
    params: Mapping[str, str]
    access_key_id: str
    source: str
    request_id: str

    def get(self, name: str) -> str | None:
        return self.params.get(name) or None

    def require(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise AwsError("MissingParameter", f"The request must contain the parameter {name}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name)
        return default if value is None else value.lower() == "true"

    def numbered(self, prefix: str) -> list[str]:
        """The values of `prefix.1`, `prefix.2`, … in order."""
        found = [(int(k[len(prefix) + 1 :]), v) for k, v in self.params.items() if _is_numbered(k, prefix)]
        return [value for _, value in sorted(found)]


def _is_numbered(key: str, prefix: str) -> bool:
    return key.startswith(prefix + ".") and key[len(prefix) + 1 :].isdigit()


def parse(*, path: str, headers: Mapping[str, str], body: bytes, source: str, request_id: str) -> Call:
    """The call behind an HTTP request; unknown protocols yield an empty service and action, never an error."""
    query = dict(parse_qsl(urlsplit(path).query, keep_blank_values=True))
    if "x-www-form-urlencoded" in headers.get("Content-Type", ""):
        query |= dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    credential = _CREDENTIAL.search(headers.get("Authorization", ""))
    target = headers.get("X-Amz-Target", "")
    return Call(
        service=credential["service"] if credential else "",
        action=query.pop("Action", "") or target.rpartition(".")[2],
        params={key: value for key, value in query.items() if key != "Version"},
        access_key_id=credential["key"] if credential else "",
        source=source,
        request_id=request_id,
    )


def upstream_authorization(authorization: str) -> str:
    """The Authorization header for the books: neither of them checks it, and both derive an account from the key."""
    return _CREDENTIAL.sub(
        lambda m: f"Credential={BOOKS_ACCOUNT}/{m['date']}/{m['region']}/{m['service']}", authorization
    )


def loggable(params: Mapping[str, str]) -> dict[str, str]:
    """Parameters as they may be written down: no signature, no secret, user data only by its length."""
    shown = {}
    for key, value in params.items():
        if key.endswith("UserData"):
            shown[key] = f"({len(value)} characters)"
        elif not _SECRET.search(key):
            shown[key] = value
    return shown


@dataclass(kw_only=True)
class CallLog:
    """Appends one JSON line per call to `path`; a line is whole or not there."""

    path: Path
    _lock: Lock = field(default_factory=Lock)

    def write(self, call: Call, *, who: str, time_ns: int, took_ms: float, status: int, error: str | None) -> None:
        row = {
            "time_ns": time_ns,
            "took_ms": round(took_ms, 3),
            "who": who,
            "source": call.source,
            "service": call.service,
            "action": call.action,
            "params": loggable(call.params),
            "status": status,
            "error": error,
            "request_id": call.request_id,
        }
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def answer(call: Call, tree: Tree) -> bytes:
    """The XML of a successful EC2 answer: `<ActionResponse><requestId/>…`."""
    root = ET.Element(f"{call.action}Response", {"xmlns": EC2_NAMESPACE})
    ET.SubElement(root, "requestId").text = call.request_id
    _fill(root, tree)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root)


def error_answer(call: Call, error: AwsError) -> bytes:
    """The XML of an EC2 error."""
    root = ET.Element("Response")
    detail = ET.SubElement(ET.SubElement(root, "Errors"), "Error")
    ET.SubElement(detail, "Code").text = error.code
    ET.SubElement(detail, "Message").text = error.message
    ET.SubElement(root, "RequestID").text = call.request_id
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root)


def error_code(body: bytes) -> str | None:
    """The error code in an AWS error answer, XML or JSON, or None."""
    found = re.search(rb"<Code>([^<]+)</Code>", body) or re.search(rb'"__type"\s*:\s*"([^"]+)"', body)
    return found.group(1).decode("utf-8", "replace").rpartition("#")[2] if found else None


def _fill(parent: ET.Element, tree: Tree) -> None:
    for name, value in tree.items():
        if value is None:
            continue
        child = ET.SubElement(parent, name)
        if isinstance(value, Mapping):
            _fill(child, value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for item in value:
                _fill(ET.SubElement(child, "item"), item)
        else:
            child.text = str(value).lower() if isinstance(value, bool) else str(value)


class Document:
    """An EC2 answer of the books, read and changed by plain element names (the namespace is put back when written)."""

    def __init__(self, body: bytes) -> None:
        self.root = ET.fromstring(body)
        for element in self.root.iter():
            element.tag = element.tag.rpartition("}")[2]

    def items(self, *names: str) -> Iterator[ET.Element]:
        """All `<item>`s of the set at this path of names, e.g. items("reservationSet", "instancesSet")."""
        path = "/".join(f"{name}/item" for name in names)
        yield from self.root.findall(path)

    def keep(self, path: str, wanted: Mapping[str, bool], key: str) -> None:
        """Drop the `<item>`s below `path` whose text at `key` maps to False in `wanted`."""
        for parent in self.root.findall(path):
            for item in parent.findall("item"):
                if not wanted.get(item.findtext(key) or "", True):
                    parent.remove(item)

    def body(self, call: Call) -> bytes:
        """The answer to `call`."""
        put(self.root, "requestId", call.request_id)
        self.root.set("xmlns", EC2_NAMESPACE)
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(self.root)


def put(parent: ET.Element, name: str, value: Any) -> None:
    """Replace (or add) the child `name` of `parent`: text, mapping or list of mappings; None removes it."""
    old = parent.find(name)
    if old is not None:
        position = list(parent).index(old)
        parent.remove(old)
    else:
        position = len(parent)
    holder = ET.Element("holder")
    _fill(holder, {name: value})
    for child in holder:
        parent.insert(position, child)


def take_filters(params: Mapping[str, str], names: Sequence[str]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Take the filters in `names` out of the request: the books cannot judge them, the data plane can.

    Returns the parameters without them (the others renumbered) and the values that each allows.
    """
    filters: dict[int, dict[str, str]] = {}
    rest: dict[str, str] = {}
    for key, value in params.items():
        match = re.fullmatch(r"Filter\.(\d+)\.(.+)", key)
        if match:
            filters.setdefault(int(match[1]), {})[match[2]] = value
        else:
            rest[key] = value
    taken: dict[str, set[str]] = {}
    number = 0
    for _, parts in sorted(filters.items()):
        name = parts.get("Name", "")
        if name in names:
            taken[name] = {v for k, v in parts.items() if k.startswith("Value")}
            continue
        number += 1
        rest |= {f"Filter.{number}.{key}": value for key, value in parts.items()}
    return rest, taken
