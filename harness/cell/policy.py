"""A policy: everything an operator chooses about the cluster, as one TOML file (fixtures/policies/), frozen, checked.

Names are the tools' own: timers as in corosync.conf(5), properties and meta attributes as in Pacemaker Explained. What
a file leaves out keeps the distribution's default: it is *absent* from the generated configuration, not filled in here.
A mistake in a file is a `UsageError` that names the file, the setting and what is wrong with it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from harness.errors import UsageError

POLICIES = Path(__file__).resolve().parents[2] / "fixtures" / "policies"

FACTS = ("volume_id", "allocation_id", "public_ip", "region", "zone", "data_dir")
"""What a parameter may ask for in braces: `volume_id = "{volume_id}"`. The cell fills it in."""

Scalar = str | int | float | bool
Milliseconds = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Role = Literal["volume", "filesystem", "pbx", "address", "other"]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Corosync:
    """Membership timers and quorum; `None` leaves the setting out of corosync.conf."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    token_ms: Milliseconds | None = None
    token_coefficient_ms: Annotated[int, Field(ge=0)] | None = None
    token_retransmits_before_loss_const: Annotated[int, Field(gt=0)] | None = None
    consensus_ms: Milliseconds | None = None
    join_ms: Milliseconds | None = None
    wait_for_all: bool | None = None
    rings: Literal[1, 2] = 1


@dataclass(frozen=True, kw_only=True)
class Fencing:
    """How a lost node is made sure to be dead. `enabled = false` is what some vendors ship: two owners are possible."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    enabled: bool = True
    agent: str = "fence_aws"
    action: Literal["off", "reboot"] = "reboot"
    timeout_s: Seconds | None = None
    monitor_interval_s: Seconds | None = None
    monitor_timeout_s: Seconds | None = None
    params: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource, in the order in which the file lists them: that is the start order.

    A `pbx` resource without an `agent` runs the profile's. `check_level` is OCF_CHECK_LEVEL of its monitor.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    role: Role
    agent: Annotated[str, Field(pattern=r"^ocf:[a-z0-9-]+:[A-Za-z0-9_-]+$")] | None = None
    monitor_interval_s: Seconds | None = None
    monitor_timeout_s: Seconds | None = None
    check_level: Annotated[int, Field(ge=0)] | None = None
    start_timeout_s: Seconds | None = None
    stop_timeout_s: Seconds | None = None
    params: dict[str, Scalar] = field(default_factory=dict)
    meta: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this policy promises, in seconds; the limits of a run unless the user gives others."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    outage_limit_s: Seconds | None = None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The whole file. `properties` are Pacemaker's cluster properties, `defaults` its resource meta defaults.

    `ordering` is `serial` (one group in the order of the list) or `parallel-address` (the address starts once the
    file system is mounted, beside the PBX: no client ever reaches a node without the volume).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    summary: str
    ordering: Literal["serial", "parallel-address"] = "serial"
    corosync: Corosync = field(default_factory=Corosync)
    fencing: Fencing = field(default_factory=Fencing)
    properties: dict[str, Scalar] = field(default_factory=dict)
    defaults: dict[str, Scalar] = field(default_factory=dict)
    resource: tuple[Resource, ...]
    limits: Limits = field(default_factory=Limits)

    def of_role(self, role: Role) -> tuple[Resource, ...]:
        """The resources with this role, in order."""
        return tuple(resource for resource in self.resource if resource.role == role)


def load_policy(name_or_path: str, *, folder: Path = POLICIES) -> Policy:
    """The policy with this name in fixtures/policies/, or in the TOML file at this path."""
    text, source = _read(name_or_path, folder)
    return parse_policy(text, source=source, folder=folder)


def parse_policy(text: str, *, source: str, folder: Path = POLICIES) -> Policy:
    """A policy out of the text of its file; `source` is what errors call it, `folder` where the extended ones are."""
    try:
        policy = TypeAdapter(Policy).validate_python(_settings(text, source, folder, extending=()))
    except ValidationError as error:
        wrong = "; ".join(f"{_where(e['loc'])}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise UsageError(f"{source}: {wrong}") from None
    mistakes = problems(policy)
    if mistakes:
        raise UsageError(f"{source}: {'; '.join(mistakes)}")
    return policy


def _read(name_or_path: str, folder: Path) -> tuple[str, str]:
    """Text and path of a policy's file."""
    path = Path(name_or_path) if name_or_path.endswith(".toml") else folder / f"{name_or_path}.toml"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.toml"))) or "none"
        raise UsageError(f"no policy {name_or_path!r}; there are: {known} (or give the path of a .toml file)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {error}") from None


def _settings(text: str, source: str, folder: Path, *, extending: tuple[str, ...]) -> dict[str, Any]:
    """What a file says, over what the policy says that it extends."""
    try:
        own = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source}: not a TOML file: {error}") from None
    base = own.pop("extends", None)
    if base is None:
        return own
    if not isinstance(base, str):
        raise UsageError(f"{source}: extends: the name of one policy is wanted (got {base!r})")
    if base in extending:
        raise UsageError(f"{source}: extends: {' extends '.join((*extending, base))}")
    below = _settings(*_read(base, folder), folder, extending=(*extending, base))
    if "name" not in own:
        raise UsageError(f"{source}: name: a policy that extends another needs a name of its own, results carry it")
    return extended(below, own)


def extended(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `base` with those of `own` over them.

    Tables are merged, resources too, by their id; a resource that `base` does not have comes last. `params` are those
    of one agent and are replaced as a whole: another agent has others.
    """
    merged = dict(base)
    for key, value in own.items():
        before = merged.get(key)
        if key == "resource" and isinstance(before, list) and isinstance(value, list):
            merged[key] = _extended_resources(before, value)
        elif key != "params" and isinstance(before, dict) and isinstance(value, dict):
            merged[key] = extended(before, value)
        else:
            merged[key] = value
    return merged


def _extended_resources(base: Sequence[Any], own: Sequence[Any]) -> list[Any]:
    """A name that comes twice in `own` stays there twice: that is an error, found later."""
    if not all(isinstance(each, dict) for each in (*base, *own)):
        return list(own)  # no tables: the check of the whole policy says so
    known = [each.get("id") for each in base]
    over = {each.get("id"): each for each in own if each.get("id") in known}
    kept = [extended(each, over.get(each.get("id"), {})) for each in base]
    return kept + [each for each in own if over.get(each.get("id")) is not each]


def problems(policy: Policy) -> list[str]:
    """What the daemons would refuse or, worse, silently ignore, in words; empty when nothing is wrong."""
    return [
        *_unknown_names("properties", policy.properties, PROPERTIES, _OWNED_BY_FENCING),
        *_unknown_names("defaults", policy.defaults, META_ATTRIBUTES, {}),
        *_timer_problems(policy.corosync),
        *_resource_problems(policy),
    ]


def effective_token_ms(corosync: Corosync, *, nodes: int) -> int:
    """The token time-out corosync will compute: token + coefficient × (nodes − 2). For bounds only: a measurement
    reads `runtime.config.totem.token` from the running cmap."""
    token = 3000 if corosync.token_ms is None else corosync.token_ms
    coefficient = 650 if corosync.token_coefficient_ms is None else corosync.token_coefficient_ms
    return token + coefficient * max(0, nodes - 2)


def _timer_problems(corosync: Corosync) -> list[str]:
    if corosync.consensus_ms is None:
        return []
    least = round(1.2 * effective_token_ms(corosync, nodes=3))
    if corosync.consensus_ms >= least:
        return []
    return [f"corosync.consensus_ms: {corosync.consensus_ms} is below 1.2 × the effective token of 3 nodes ({least})"]


def _resource_problems(policy: Policy) -> list[str]:
    wrong = []
    ids = [resource.id for resource in policy.resource]
    wrong += [f"resource {name!r} is there {ids.count(name)} times" for name in sorted(set(ids)) if ids.count(name) > 1]
    for resource in policy.resource:
        where = f"resource {resource.id}"
        if resource.agent is None and resource.role != "pbx":
            wrong.append(f"{where}: agent is missing (only a pbx may leave it to the profile)")
        wrong += _unknown_names(f"{where}.meta", resource.meta, META_ATTRIBUTES, {})
        wrong += unknown_facts(f"{where}.params", resource.params)
    wrong += unknown_facts("fencing.params", policy.fencing.params)
    if not policy.of_role("pbx"):
        wrong.append("no resource has the role pbx")
    if policy.ordering == "parallel-address" and not (policy.of_role("filesystem") and policy.of_role("address")):
        wrong.append("ordering parallel-address needs a resource of role filesystem and one of role address")
    return wrong


def unknown_facts(where: str, params: Mapping[str, Scalar]) -> list[str]:
    """What is wrong with the facts that parameters ask for in braces, in words; `where` is what errors call them."""
    wrong = []
    for key, value in params.items():
        try:
            asked = [name for _, name, _, _ in Formatter().parse(str(value)) if name is not None]
        except ValueError as error:
            wrong.append(f"{where}.{key}: {error}")
            continue
        wrong += [
            f"{where}.{key}: no fact {{{name}}}; there are: {', '.join(FACTS)}" for name in asked if name not in FACTS
        ]
    return wrong


def _unknown_names(
    where: str, given: Mapping[str, Scalar], known: frozenset[str], owned: Mapping[str, str]
) -> list[str]:
    """Pacemaker ignores a name it does not know without a word; a policy must not."""
    wrong = [f"{where}.{name}: set {owned[name]} instead" for name in given if name in owned]
    return wrong + [
        f"{where}.{name}: Pacemaker 2.1 has no such name" for name in given if name not in known and name not in owned
    ]


def _where(loc: tuple[Any, ...]) -> str:
    return re.sub(r"\.(\d+)", r"[\1]", ".".join(str(part) for part in loc)) or "the file"


_OWNED_BY_FENCING = {
    "stonith-enabled": "fencing.enabled",
    "stonith-action": "fencing.action",
    "stonith-timeout": "fencing.timeout_s",
}

_PROPERTIES = """
    batch-limit cluster-delay cluster-ipc-limit cluster-recheck-interval concurrent-fencing dc-deadtime
    election-timeout enable-acl enable-startup-probes fence-reaction have-watchdog join-finalization-timeout
    join-integration-timeout load-threshold maintenance-mode migration-limit no-quorum-policy node-action-limit
    node-health-base node-health-green node-health-red node-health-strategy node-health-yellow pe-error-series-max
    pe-input-series-max pe-warn-series-max placement-strategy priority-fencing-delay remove-after-stop
    shutdown-escalation shutdown-lock shutdown-lock-limit start-failure-is-fatal startup-fencing
    stonith-max-attempts stonith-watchdog-timeout stop-all-resources stop-orphan-actions stop-orphan-resources
    symmetric-cluster transition-delay
"""

PROPERTIES = frozenset(_PROPERTIES.split())
"""Cluster properties of Pacemaker 2.1 (pacemaker-controld(7), pacemaker-schedulerd(7)) but for those of [fencing]."""

_META_ATTRIBUTES = """
    allow-migrate allow-unhealthy-nodes container-attribute-target critical failure-timeout is-managed maintenance
    migration-threshold multiple-active priority requires resource-stickiness target-role
"""

META_ATTRIBUTES = frozenset(_META_ATTRIBUTES.split())
"""Meta attributes of a primitive (Pacemaker Explained 2.1, Resource Options)."""
