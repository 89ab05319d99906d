"""Roles and the nodes they resolve to at injection."""

from __future__ import annotations

import pytest

from harness.errors import InfrastructureError
from harness.faults.targets import resolve

NODES = ("pbx-1", "pbx-2", "pbx-3")


@pytest.mark.parametrize(
    ("target", "active", "dc", "node"),
    [
        ("pbx-3", None, None, "pbx-3"),
        ("active", "pbx-2", None, "pbx-2"),
        ("dc", None, "pbx-1", "pbx-1"),
        ("standby", "pbx-1", None, "pbx-2"),
        ("standby", "pbx-2", "pbx-1", "pbx-1"),
    ],
)
def test_a_role_is_a_node(target: str, active: str | None, dc: str | None, node: str) -> None:
    assert resolve(target, nodes=NODES, active=active, dc=dc) == node


@pytest.mark.parametrize("target", ["active", "standby", "dc"])
def test_a_role_nobody_has_is_no_target(target: str) -> None:
    with pytest.raises(InfrastructureError, match=f"no node is {target} right now"):
        resolve(target, nodes=NODES, active=None, dc=None)


def test_an_unknown_target_lists_nodes_and_roles() -> None:
    with pytest.raises(InfrastructureError, match=r"'pbx-4' is neither a node .* nor a role"):
        resolve("pbx-4", nodes=NODES, active="pbx-1", dc="pbx-1")
