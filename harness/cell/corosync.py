"""corosync.conf as a pure function of policy and cell: what the policy leaves out is left out of the file."""

from __future__ import annotations

from collections.abc import Mapping

from harness.cell.facts import CellFacts
from harness.cell.policy import Corosync
from harness.errors import UsageError

LOG_FILE = "/var/log/pbx-node/corosync.log"

Section = Mapping[str, object]


def corosync_conf(corosync: Corosync, facts: CellFacts) -> str:
    """The text of /etc/corosync/corosync.conf, the same on every node."""
    for node in facts.nodes:
        if len(node.addresses) < corosync.rings:
            raise UsageError(f"the policy wants {corosync.rings} rings, {node.name} has one network interface")
    return "".join(
        (
            _section("totem", _totem(corosync, facts)),
            _section("system", _SHARED_HOST) if facts.containers else "",
            "nodelist {\n" + "".join(_section("node", row, depth=1) for row in _nodes(corosync, facts)) + "}\n",
            _section("quorum", {"provider": "corosync_votequorum", "wait_for_all": _flag(corosync.wait_for_all)}),
            _section("logging", _LOGGING),
        )
    )


def _totem(corosync: Corosync, facts: CellFacts) -> Section:
    return {
        "version": 2,
        "cluster_name": facts.cluster_name,
        "transport": "knet",
        "crypto_cipher": "none",
        "crypto_hash": "none",
        "token": corosync.token_ms,
        "token_coefficient": corosync.token_coefficient_ms,
        "token_retransmits_before_loss_const": corosync.token_retransmits_before_loss_const,
        "consensus": corosync.consensus_ms,
        "join": corosync.join_ms,
    }


def _nodes(corosync: Corosync, facts: CellFacts) -> list[Section]:
    return [
        {"name": node.name, "nodeid": node.node_id}
        | {f"ring{ring}_addr": address for ring, address in enumerate(node.addresses[: corosync.rings])}
        for node in facts.nodes
    ]


_SHARED_HOST: Section = {"sched_rr": "no", "move_to_root_cgroup": "no"}
"""A container may not ask for real-time scheduling; corosync does not start if it tries and is told to insist."""

_LOGGING: Section = {
    "to_stderr": "no",
    "to_logfile": "yes",
    "logfile": LOG_FILE,
    "to_syslog": "no",
    "timestamp": "hires",
    "debug": "off",
}


def _section(name: str, rows: Section, *, depth: int = 0) -> str:
    indent = "    " * depth
    lines = [f"{indent}    {key}: {value}\n" for key, value in rows.items() if value is not None]
    return f"{indent}{name} {{\n{''.join(lines)}{indent}}}\n"


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)
