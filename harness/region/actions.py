"""Everything the region answers itself, found by looking: no list to edit when an action is added.

A module of this package called `ec2_…` exports ACTIONS (by the action's name); `ssm` and `sts` do for their services.
What a call made is found again by its client token with their MADE. What the harness can set beyond the API is in the
CONTROLS and SHOWN of any of these and of `control`, `capacity`, `disk_injuries` and `recovery`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TypeVar

import harness.region
from harness.region import capacity, control, disk_injuries, recovery, ssm, sts
from harness.region.plane import Action, Control, Found, Shown

T = TypeVar("T")


def _ec2_modules() -> list[ModuleType]:
    names = sorted(info.name for info in pkgutil.iter_modules(harness.region.__path__))
    return [importlib.import_module(f"harness.region.{name}") for name in names if name.startswith("ec2_")]


def merged(modules: Iterable[ModuleType], name: str) -> dict[str, T]:
    """The tables called `name` of all modules as one; `ValueError` when two of them claim the same key."""
    found: dict[str, T] = {}
    for module in modules:
        table: Mapping[str, T] = getattr(module, name, {})
        twice = sorted(found.keys() & table.keys())
        if twice:
            raise ValueError(f"{module.__name__}: {twice[0]} is in the {name} of another module too")
        found.update(table)
    return found


EC2_MODULES = _ec2_modules()
ACTIONS: Mapping[str, Action] = merged(EC2_MODULES, "ACTIONS")
MADE: Mapping[str, Found] = merged(EC2_MODULES, "MADE")
SERVICES: Mapping[str, Mapping[str, Action]] = {"ec2": ACTIONS, "ssm": ssm.ACTIONS, "sts": sts.ACTIONS}
CONTROLS: Mapping[str, Control] = merged([control, capacity, disk_injuries, recovery, *EC2_MODULES], "CONTROLS")
SHOWN: Mapping[str, Shown] = merged([control, capacity, disk_injuries, recovery, *EC2_MODULES], "SHOWN")
