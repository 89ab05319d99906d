"""What a fault is: the protocol every injury keeps, and how one is written down so that any process can heal it."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from harness.cell.cell import Cell


@dataclass(frozen=True, kw_only=True)
class Landed:
    """The injury was observed: what was hit, when (CLOCK_MONOTONIC, ns) and by which fact this is known."""

    target: str
    at_ns: int
    observed_by: str


class Fault(Protocol):
    """An injury. Implementations are frozen dataclasses with plain fields (they are written to the undo journal)."""

    @property
    def name(self) -> str:
        """What it does in words, e.g. `power off active`."""

    def resolved(self, cell: Cell) -> Fault:
        """The same fault with its role (active, standby, …) resolved to a node's name. Called once, at injection."""

    def unmet(self, cell: Cell) -> str | None:
        """Why this fault can't run on this cell, or None."""

    def inject(self, cell: Cell) -> AbstractContextManager[Landed]:
        """Injure; enter only once the injury was *observed* to have landed; heal on the way out."""

    def heal(self, cell: Cell) -> None:
        """Remove the injury. Idempotent, touches only what `inject` created; also called by another process."""


def dump(fault: Fault) -> dict[str, Any]:
    """A fault as JSON-ready data."""
    kind = type(fault)
    return {"fault": f"{kind.__module__}:{kind.__qualname__}", "fields": asdict(cast(Any, fault))}


def load(row: dict[str, Any]) -> Fault:
    """The fault that `dump` wrote down."""
    module, _, name = str(row["fault"]).partition(":")
    return cast(Fault, getattr(importlib.import_module(module), name)(**row["fields"]))
