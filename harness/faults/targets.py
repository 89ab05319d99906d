"""Roles and how they resolve to nodes: a scenario says `active`, the injection records which node that was."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import InfrastructureError

ROLES = ("active", "standby", "dc")


def resolve(target: str, *, nodes: Sequence[str], active: str | None, dc: str | None) -> str:
    """The node's name behind `target`: a role of `ROLES`, or a node's own name.

    `standby` is the first node, by name, that is not the active one. A role nobody has right now is an
    `InfrastructureError`: an injury that hits nothing must not count.
    """
    if target in nodes:
        return target
    if target == "active" and active is not None:
        return active
    if target == "dc" and dc is not None:
        return dc
    if target == "standby" and active is not None:
        others = sorted(name for name in nodes if name != active)
        if others:
            return others[0]
    if target in ROLES:
        raise InfrastructureError(f"no node is {target} right now: the cluster has to be up before it is injured")
    raise InfrastructureError(f"{target!r} is neither a node ({', '.join(nodes)}) nor a role ({', '.join(ROLES)})")
