"""Injuries of the API itself, for every caller: what happens to a call before (or after) the region carries it out.

A rule says which calls it is for (service, action, caller) and when it strikes (so many times, with a probability, in
a window of time). `ApiFaults.decide` is pure but for its counters: the same rules, calls and moments give the same
faults. Rules and counters are in a file of the cell, so that they outlive the gateway; CLOCK_MONOTONIC does so too.
Codes: AWS, "Error codes for the Amazon EC2 API", "Common errors" of Systems Manager and of STS.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any, Literal, get_args

from harness.region.calls import AwsError, Call
from harness.region.files import write_json

FILE = "api-faults.json"
HARNESS = "harness"
EVERYBODY = "*"
"""Every caller but the harness, whose calls are spared unless it is named."""

Kind = Literal["throttle", "server_error", "latency", "time_out", "reset", "lost_reply", "expired_credentials"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_LATENCY_S = 600.0
MAX_RULES = 100

_EC2 = {
    "throttle": AwsError("RequestLimitExceeded", "Request limit exceeded.", 503),
    "server_error": AwsError("InternalError", "An internal error has occurred", 500),
    "expired_credentials": AwsError("RequestExpired", "Request has expired.", 400),
}
_JSON = {
    "throttle": AwsError("ThrottlingException", "Rate exceeded", 400),
    "server_error": AwsError("InternalServerError", "An error occurred on the server side.", 500),
    "expired_credentials": AwsError(
        "ExpiredTokenException", "The security token included in the request is expired", 400
    ),
}
_QUERY = {
    "throttle": AwsError("Throttling", "Rate exceeded", 400),
    "server_error": AwsError("InternalFailure", "An internal error has occurred", 500),
    "expired_credentials": AwsError("ExpiredToken", "The security token included in the request is expired", 403),
}
_OTHER_CODES: Mapping[str, Mapping[str, AwsError]] = {
    "server_error": {
        "Unavailable": AwsError("Unavailable", "The server is overloaded and can't handle the request.", 503),
        "ServiceUnavailable": AwsError("ServiceUnavailable", "The request has failed: the server is down.", 503),
        "InternalError": _EC2["server_error"],
        "InternalFailure": _QUERY["server_error"],
    },
    "expired_credentials": {
        "AuthFailure": AwsError(
            "AuthFailure", "AWS was not able to validate the provided access credentials", 401
        ),
        "ExpiredToken": _QUERY["expired_credentials"],
        "RequestExpired": _EC2["expired_credentials"],
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which calls, and when. Patterns are those of a shell (`Describe*`); what is not given does not restrict.

    `count`: so many calls. `probability`: each call with it, drawn with `seed`. `from_s`, `until_s`: from so many
    seconds after the rule was set until so many. All that are given have to hold. `code` chooses among the error codes
    of `server_error` (Unavailable, ServiceUnavailable) and `expired_credentials` (AuthFailure, ExpiredToken).
    """

    id: str
    kind: Kind
    services: tuple[str, ...] = ("*",)
    actions: tuple[str, ...] = ("*",)
    callers: tuple[str, ...] = (EVERYBODY,)
    count: int | None = None
    probability: float | None = None
    seed: int = 0
    from_s: float = 0.0
    until_s: float | None = None
    latency_s: float = 0.0
    code: str | None = None

    def __post_init__(self) -> None:
        for name in ("services", "actions", "callers"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for name in ("count", "probability", "from_s", "until_s", "latency_s"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{name} must be a number, not {value!r}")
        if not isinstance(self.id, str) or not 0 < len(self.id) <= 128:
            raise ValueError(f"a rule's id has 1 to 128 characters: {self.id!r}")
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; there are: {', '.join(KINDS)}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")
        if self.probability is not None and not 0 < self.probability <= 1:
            raise ValueError(f"probability must be above 0 and at most 1, not {self.probability}")
        if self.from_s < 0 or (self.until_s is not None and self.until_s <= self.from_s):
            raise ValueError("a window begins at 0 or later and ends after it began")
        if (self.kind == "latency") != (self.latency_s > 0) or self.latency_s > MAX_LATENCY_S:
            raise ValueError(f"latency, and only that, has latency_s: above 0, at most {MAX_LATENCY_S:g}")
        codes = _OTHER_CODES.get(self.kind, {})
        if self.code is not None and self.code not in codes:
            raise ValueError(f"{self.kind} has no code {self.code!r}; there are: {', '.join(codes) or 'none'}")

    @classmethod
    def of(cls, row: object) -> Rule:
        """The rule in this JSON; `ValueError` says what is wrong with it."""
        if not isinstance(row, Mapping):
            raise ValueError(f"a rule is a mapping, not {row!r}")
        unknown = sorted(set(row) - {f.name for f in fields(cls)})
        missing = sorted({"id", "kind"} - set(row))
        if unknown or missing:
            raise ValueError(f"a rule has no {unknown[0]!r}" if unknown else f"a rule needs {missing[0]!r}")
        return cls(**row)

    def meant(self, call: Call, who: str) -> bool:
        """Whether the call is one of those that this rule is for."""
        if who == HARNESS and HARNESS not in self.callers:
            return False
        return (
            _any(call.service, self.services) and _any(call.action, self.actions) and _any(who, self.callers)
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What shall happen to one call, and by which rule."""

    rule: Rule

    @property
    def kind(self) -> Kind:
        return self.rule.kind

    @property
    def label(self) -> str:
        """As it stands in cloud-calls.jsonl."""
        return f"{self.rule.id}/{self.rule.kind}"

    def error(self, protocol: str) -> AwsError | None:
        """The error to answer with, in the words of the service; None for a kind that answers nothing of its own."""
        if self.rule.code is not None:
            return _OTHER_CODES[self.kind][self.rule.code]
        return {"json": _JSON, "query": _QUERY}.get(protocol, _EC2).get(self.kind)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A rule that is set: since when (seconds, CLOCK_MONOTONIC), how many calls it looked at, how many it struck."""

    rule: Rule
    since_s: float
    seen: int = 0
    struck: int = 0


@dataclass(kw_only=True)
class ApiFaults:
    """The rules of one region, in the order in which they were set: the first that strikes has the call.

    Safe to use from several threads: a rule that was cleared while a call was decided does not come back.
    """

    path: Path | None = None
    _standing: dict[str, Standing] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def read(cls, path: Path) -> ApiFaults:
        """Those of a gateway before this one; none when there is no file."""
        faults = cls(path=path)
        if path.exists():
            for row in json.loads(path.read_text(encoding="utf-8")):
                rule = Rule.of(row.pop("rule"))
                faults._standing[rule.id] = Standing(rule=rule, **row)
        return faults

    def set(self, rules: Iterable[Rule], *, now_s: float) -> None:
        """Add these rules; one whose id is there already begins anew."""
        added = {rule.id: Standing(rule=rule, since_s=now_s) for rule in rules}
        with self._lock:
            if len(self._standing | added) > MAX_RULES:
                raise ValueError(f"more than {MAX_RULES} rules")
            self._standing |= added
            self._save()

    def clear(self, ids: Iterable[str]) -> dict[str, int]:
        """Remove these rules, those that are there; how many calls each had struck."""
        with self._lock:
            gone = {i: self._standing.pop(i).struck for i in list(ids) if i in self._standing}
            self._save()
        return gone

    def show(self, *, now_s: float) -> list[dict[str, Any]]:
        """Every rule with how long it has been set (`age_s`), and what it has `seen` and `struck`."""
        with self._lock:
            standing = list(self._standing.values())
        return [
            {**asdict(s.rule), "age_s": round(now_s - s.since_s, 3), "seen": s.seen, "struck": s.struck}
            for s in standing
        ]

    def decide(self, call: Call, who: str, now_s: float) -> Fault | None:
        """What shall happen to this call, if anything."""
        with self._lock:
            for standing in list(self._standing.values()):
                if standing.rule.meant(call, who):
                    strikes = _strikes(standing, now_s)
                    after = replace(standing, seen=standing.seen + 1, struck=standing.struck + strikes)
                    self._standing[standing.rule.id] = after
                    if strikes:
                        with suppress(OSError):  # a full disk: only a gateway after this one would count anew
                            self._save()
                        return Fault(rule=standing.rule)
        return None

    def _save(self) -> None:
        if self.path is not None:
            write_json(self.path, [asdict(standing) for standing in self._standing.values()])


def _strikes(standing: Standing, now_s: float) -> bool:
    rule, age_s = standing.rule, now_s - standing.since_s
    if age_s < rule.from_s or (rule.until_s is not None and age_s >= rule.until_s):
        return False
    if rule.count is not None and standing.struck >= rule.count:
        return False
    if rule.probability is None:
        return True
    return Random(f"{rule.seed}/{rule.id}/{standing.seen}").random() < rule.probability


def _any(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} must be a list of texts, not {value!r}")
    return tuple(value)
