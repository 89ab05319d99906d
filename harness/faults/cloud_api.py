"""Injuries of what the nodes ask AWS: the API (calls refused, late, lost), and instance metadata.

On the local region they are rules and switches of the gateway (harness/region/api_faults.py, metadata.py); every caller
meets them, stock agents included. A fault lands when the region says that it is in force; which calls it struck stands
in cloud-calls.jsonl ("fault"), how many in region-events.jsonl when it is healed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from harness.clock import now_ns
from harness.command import wait_for
from harness.faults.on_node import OnNode
from harness.faults.targets import ROLES, resolve
from harness.faults.types import Landed
from harness.region.api_faults import Kind, Rule
from harness.region.control import Control

if TYPE_CHECKING:
    from harness.cell.cell import Cell

LAND_TIMEOUT_S = 5.0
CALLERS = ("*", "harness")


@dataclass(frozen=True, kw_only=True)
class ApiFault:
    """Calls of `callers` (roles, nodes by name, `*`: all nodes, `harness`) fare as `kind` says; see `Rule`."""

    observable: ClassVar[str] = "the region's rule, how many calls it struck (cloud-calls.jsonl)"
    healed_by: ClassVar[str] = "the rule is removed"
    on_ec2: ClassVar[str] = "no"

    kind: Kind
    services: tuple[str, ...] = ("*",)
    actions: tuple[str, ...] = ("*",)
    callers: tuple[str, ...] = ("*",)
    count: int | None = None
    probability: float | None = None
    seed: int = 0
    from_s: float = 0.0
    until_s: float | None = None
    latency_s: float = 0.0
    code: str | None = None

    def __post_init__(self) -> None:
        for name in ("services", "actions", "callers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self.rule  # noqa: B018 – what can't be is refused where it is written down

    @property
    def name(self) -> str:
        return f"API {self.kind} of {', '.join(self.actions)} for {', '.join(self.callers)}"

    @property
    def rule(self) -> Rule:
        """As the region takes it. Its id follows from what it says, so that any process can remove it again."""
        fields: dict[str, Any] = asdict(self)
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
        return Rule(id=f"{self.kind}-{digest}", **fields)

    def resolved(self, cell: Cell) -> ApiFault:
        if not set(self.callers) & set(ROLES):
            return self
        state, nodes = cell.cluster(), [n.name for n in cell.nodes]
        callers = [
            resolve(who, nodes=nodes, active=state.active, dc=state.dc) if who in ROLES else who for who in self.callers
        ]
        return replace(self, callers=tuple(dict.fromkeys(callers)))

    def unmet(self, cell: Cell) -> str | None:
        names = [n.name for n in cell.nodes]
        unknown = [who for who in self.callers if who not in (*names, *ROLES, *CALLERS)]
        return f"{unknown[0]!r} is no caller of this cell" if unknown else None

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        control, rule = Control(cell.topology), self.rule
        try:
            control.set_api_faults(rule)
            wait_for(f"the rule {rule.id}", lambda: _standing(control, rule.id), timeout_s=LAND_TIMEOUT_S)
            yield Landed(
                target=", ".join(self.callers), at_ns=now_ns(), observed_by=f"region: rule {rule.id} in force"
            )  # fmt: skip
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        Control(cell.topology).clear_api_faults(self.rule.id)

    def struck(self, cell: Cell) -> int:
        """How many calls it has struck so far; 0 when it is not in force."""
        row = _standing(Control(cell.topology), self.rule.id)
        return int(row["struck"]) if row else 0


@dataclass(frozen=True, kw_only=True)
class MetadataFault(OnNode):
    """Instance metadata of one node fails: `refused`, `silent` (taken, never answered) or `throttled` (503)."""

    observable: ClassVar[str] = "the metadata service's mode"
    healed_by: ClassVar[str] = "the mode is on"
    on_ec2: ClassVar[str] = "no"

    mode: str = "refused"

    def __post_init__(self) -> None:
        if self.mode not in ("refused", "silent", "throttled"):
            raise ValueError(f"metadata is refused, silent or throttled, not {self.mode!r}")

    @property
    def name(self) -> str:
        return f"metadata {self.mode} on {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        node = cell.node(self.target)
        try:
            Control(cell.topology).switch_metadata({node.instance_id: self.mode})
            yield Landed(target=node.name, at_ns=now_ns(), observed_by=f"metadata service: {self.mode}")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        Control(cell.topology).switch_metadata({cell.node(self.target).instance_id: "on"})


def _standing(control: Control, rule_id: str) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = control.show()["api_faults"]
    return next((row for row in rows if row["id"] == rule_id), None)


def api_fault(kind: Kind, *, actions: Sequence[str] = ("*",), callers: Sequence[str] = ("*",), **more: Any) -> ApiFault:
    """Calls of `callers` are throttled, late, lost, … (`Kind`); by count, probability or window where given."""
    return ApiFault(kind=kind, actions=tuple(actions), callers=tuple(callers), **more)


def metadata_fault(target: str, mode: str = "refused") -> MetadataFault:
    """Instance metadata of `active`, `standby`, `dc` or a node by name fails."""
    return MetadataFault(target=target, mode=mode)
