"""One AWS call as data: read from HTTP, written to the call log without secrets, answered in EC2's own XML.

EC2 speaks the query protocol (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html): a form with
`Action` and flat parameters (`InstanceId.1`, `Filter.1.Value.2`), STS too (2011-06-15); SSM speaks JSON 1.1. Errors in
the words of each are in protocols.py.
"""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from harness.region.semantics.matching import Filters

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
XML_TYPE = "text/xml;charset=UTF-8"

_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/,\s]+)/(?P<date>[^/,\s]*)/(?P<region>[^/,\s]*)/(?P<service>[^/,\s]*)")
MAX_PARAMETERS = 10_000
"""More than any call has; what is beyond is malformed."""

Protocol = Literal["ec2", "query", "json"]
"""How a call is put and answered: EC2's own dialect of the query protocol, the query protocol (STS), JSON 1.1 (SSM)."""

_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOGGED_CHARACTERS, _LOGGED_PARAMETERS = 1000, 200
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
    """A request: who asked for what. `params` are the flat query parameters without Action and Version, `data` the body
    of a JSON call. `defect` says why it can't be read, `version` for which edition of the API it is made ("": none)."""

    service: str
    action: str
    params: Mapping[str, str]
    access_key_id: str
    source: str
    request_id: str
    protocol: Protocol = "ec2"
    data: Mapping[str, Any] = field(default_factory=dict)
    defect: str | None = None
    version: str = ""

    def get(self, name: str) -> str | None:
        return self.params.get(name) or None

    def require(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise AwsError("MissingParameter", f"The request must contain the parameter {name}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if value.lower() not in ("true", "false"):
            raise AwsError("InvalidParameterValue", f"Invalid value '{value[:64]}' for {name}: it is true or false.")
        return value.lower() == "true"

    def numbered(self, prefix: str) -> list[str]:
        """The values of `prefix.1`, `prefix.2`, … in order."""
        found = [(int(k[len(prefix) + 1 :]), v) for k, v in self.params.items() if _is_numbered(k, prefix)]
        return [value for _, value in sorted(found)]


def _is_numbered(key: str, prefix: str) -> bool:
    return key.startswith(prefix + ".") and is_index(key[len(prefix) + 1 :])


def is_index(text: str) -> bool:
    """Whether this can be the place of an item in a list, as in `InstanceId.1`."""
    return text.isascii() and text.isdigit() and len(text) <= 6


def number(text: str, *, digits: int = 10) -> int | None:
    """The whole number that a parameter stands for; None for what is none, or has more digits than any that counts.

    (`int` alone takes the digits of every script, underscores and blanks, and fails on thousands of digits.)
    """
    bare = text.removeprefix("-")
    return int(text) if bare.isascii() and bare.isdigit() and len(bare) <= digits else None


def parse(*, path: str, headers: Mapping[str, str], body: bytes, source: str, request_id: str) -> Call:
    """The call behind an HTTP request, never an error: what can't be read is told in `defect`."""
    target = headers.get("X-Amz-Target", "")
    content_type = headers.get("Content-Type", "")
    query, data, defect = _form(urlsplit(path).query)
    if "x-www-form-urlencoded" in content_type:
        form, _, defect = _form(body)
        query |= form
    elif target:
        data, defect = _json(body)
    credential = _CREDENTIAL.search(headers.get("Authorization", "")) or _CREDENTIAL.search(
        f"Credential={query.get('X-Amz-Credential', '')}"
    )
    service = credential["service"] if credential else ""
    version = query.pop("Version", "")
    return Call(
        service=service,
        action=query.pop("Action", "") or target.rpartition(".")[2],
        params=query,
        access_key_id=credential["key"] if credential else "",
        source=source,
        request_id=request_id,
        protocol="json" if target or "json" in content_type else "ec2" if service in ("ec2", "") else "query",
        data=data,
        defect=defect,
        version=version,
    )


def _form(text: str | bytes) -> tuple[dict[str, str], dict[str, Any], str | None]:
    try:
        plain = text.decode("ascii") if isinstance(text, bytes) else text
        if re.search(r"%(?![0-9A-Fa-f]{2})", plain):
            raise ValueError("a stray '%'")
        pairs = parse_qsl(plain, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        return {}, {}, str(error)
    return dict(pairs), {}, None


def _json(body: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        return {}, str(error)
    return (value, None) if isinstance(value, dict) else ({}, "not an object")


def loggable(params: Mapping[str, str]) -> dict[str, str]:
    """Parameters as they may be written down: no signature, no secret, user data by its length, nothing endless."""
    shown = {}
    for key, value in list(params.items())[:_LOGGED_PARAMETERS]:
        if key.endswith("UserData"):
            shown[key] = f"({len(value)} characters)"
        elif not _SECRET.search(key):
            shown[key[:_LOGGED_CHARACTERS]] = value[:_LOGGED_CHARACTERS]
    return shown


@dataclass(kw_only=True)
class CallLog:
    """Appends one JSON line per call to `path`; a line is whole or not there.

    Never raises, so that a full disk can't keep a call from its answer: what could not be written is written before the
    next line.
    """

    path: Path
    _lock: Lock = field(default_factory=Lock)
    _fd: int | None = None
    _unwritten: bytes = b""

    def write(
        self,
        call: Call,
        *,
        who: str,
        time_ns: int,
        took_ms: float,
        status: int,
        error: str | None,
        fault: str | None = None,
    ) -> None:
        """`status` is 0 for a call that got no answer and was not carried out, `fault` what was done to it."""
        row: dict[str, Any] = {
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
        if fault is not None:
            row["fault"] = fault
        line = (json.dumps(row) + "\n").encode()
        with self._lock, suppress(OSError):
            self._unwritten += line
            if self._fd is None:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._fd, self._unwritten) :]

    def close(self) -> None:
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
            self._fd = None


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
    ET.SubElement(detail, "Message").text = printable(error.message)
    ET.SubElement(root, "RequestID").text = call.request_id
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root)


def printable(text: str) -> str:
    """Without the characters that XML can't hold."""
    return _UNPRINTABLE.sub("\ufffd", text)


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
            child.text = str(value).lower() if isinstance(value, bool) else printable(str(value))


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

    def append(self, further: Document) -> None:
        """The items of the next page of the same answer, and its token."""
        for child in further.root:
            mine = self.root.find(child.tag)
            if mine is None:
                self.root.append(child)
            elif child.find("item") is not None:
                mine.extend(child.findall("item"))
        put(self.root, "nextToken", further.root.findtext("nextToken"))

    def intersect(self, other: Document) -> None:
        """Keep of every set only the items that another answer to the same action has as well."""
        theirs = {child.tag: {ET.tostring(item) for item in child.findall("item")} for child in other.root}
        for child in self.root:
            for item in child.findall("item"):
                if ET.tostring(item) not in theirs.get(child.tag, ()):
                    child.remove(item)

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


def take_filters(params: Mapping[str, str], names: Collection[str]) -> tuple[dict[str, str], Filters]:
    """Take the filters in `names` out of the request: the books cannot judge them, the data plane can.

    Returns the parameters without them (the others renumbered), and them.
    """
    rest, filters = _filters(params)
    taken = [(name, frozenset(values)) for name, values in filters if name in names]
    return rest | _numbered([row for row in filters if row[0] not in names]), taken


def one_of_each(params: Mapping[str, str]) -> list[dict[str, str]]:
    """The request as several, none of which has two filters of the same name: what all of them find it is after."""
    rest, filters = _filters(params)
    rounds: list[dict[str, list[str]]] = [{}]
    for name, values in filters:
        free = next((each for each in rounds if name not in each), None)
        if free is None:
            rounds.append(free := {})
        free[name] = values
    return [rest | _numbered(list(each.items())) for each in rounds]


def _filters(params: Mapping[str, str]) -> tuple[dict[str, str], list[tuple[str, list[str]]]]:
    """The other parameters of a request, and its filters in order."""
    rest: dict[str, str] = {}
    names: dict[int, str] = {}
    values: dict[int, list[str]] = {}
    for key, value in params.items():
        match = re.fullmatch(r"Filter\.([0-9]{1,6})\.(Name|Value(?:\.[0-9]+)?)", key)
        if match is None:
            rest[key] = value
        elif match[2] == "Name":
            names[int(match[1])] = value
        else:
            values.setdefault(int(match[1]), []).append(value)
    return rest, [(names.get(place, ""), values.get(place, [])) for place in sorted({*names, *values})]


def _numbered(filters: Iterable[tuple[str, Iterable[str]]]) -> dict[str, str]:
    params: dict[str, str] = {}
    for place, (name, values) in enumerate(filters, start=1):
        params[f"Filter.{place}.Name"] = name
        params |= {f"Filter.{place}.Value.{n}": value for n, value in enumerate(values, start=1)}
    return params
