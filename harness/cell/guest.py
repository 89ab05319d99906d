"""What a node needs to be a node of the cell: every file that is pushed to it, as a pure function.

The image carries packages only. Agents, PBX profile, configuration and the boot, halt and alert scripts come from here,
so that a change of any of them needs no build; on AWS the same files go to the instances.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.cell.cib import ALERT_AGENT
from harness.cell.facts import CellFacts, NodeFacts
from harness.cell.node import File
from harness.cell.profile import PROFILES_ON_NODE

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
AGENTS_DIR = "/usr/lib/ocf/resource.d/pbxha"
FENCE_AGENTS_DIR = "/usr/sbin"
LIBRARY_DIR = "/usr/local/lib/pbx-node"
AWS_CONFIG = "/etc/pbx-node/aws-config"
ENV_FILE = "/etc/pbx-node/env"
BOOT = "/etc/pbx-node/boot"
CIB_FILE = "/var/lib/pacemaker/cib/cib.xml"
PACEMAKER_LOG = "/var/log/pbx-node/pacemaker.log"

HACLUSTER_UID, HACLIENT_GID = 100, 101
"""Pacemaker's user and group on Debian 12."""


def system_files(facts: CellFacts, node: NodeFacts, *, endpoint_url: str | None) -> dict[str, File]:
    """Scripts, names, environment and AWS configuration of one node. `endpoint_url` is None on AWS itself."""
    return {
        BOOT: _script("boot"),
        "/etc/pbx-node/halt": _script("halt"),
        ALERT_AGENT: _script("alert"),
        "/etc/pbx-node/hosts": _text(hosts(facts)),
        ENV_FILE: _text(environment(facts, node)),
        AWS_CONFIG: _text(aws_config(facts, endpoint_url)),
    }


def cluster_files(*, corosync_conf: str, cib: str) -> dict[str, File]:
    """Configuration of corosync and Pacemaker. The CIB has to be there before the first start (see cib.py)."""
    return {
        "/etc/corosync/corosync.conf": _text(corosync_conf),
        CIB_FILE: File(content=cib.encode(), mode=0o600, uid=HACLUSTER_UID, gid=HACLIENT_GID),
    }


def agent_files(folder: Path = FIXTURES / "agents") -> dict[str, File]:
    """Our agents: resource agents below the provider `pbxha`, fence agents (fence_*) where Pacemaker looks for them,
    Python modules that they share (*.py) in LIBRARY_DIR."""
    agents = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return {_agent_place(path.name): File(content=path.read_bytes(), mode=0o755) for path in agents}


def _agent_place(name: str) -> str:
    if name.endswith(".py"):
        return f"{LIBRARY_DIR}/{name}"
    return f"{FENCE_AGENTS_DIR if name.startswith('fence_') else AGENTS_DIR}/{name}"


def profile_files(name: str, folder: Path) -> dict[str, File]:
    """A PBX profile's folder, as it is, with the executable bits it has here."""
    return {
        f"{PROFILES_ON_NODE}/{name}/{path.relative_to(folder)}": File(
            content=path.read_bytes(), mode=0o755 if path.stat().st_mode & 0o100 else 0o644
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def environment(facts: CellFacts, node: NodeFacts) -> str:
    """/etc/pbx-node/env: KEY=value lines that sh and Python read alike; agents and fence agents inherit them."""
    values: Mapping[str, str] = {
        "PBX_NODE": node.name,
        "PBX_INSTANCE_ID": node.instance_id,
        "PBX_PRIVATE_IP": node.addresses[0],
        "PBX_PUBLIC_IP": facts.public_ip,
        "PBX_DATA_DIR": facts.data_dir,
        "AWS_CONFIG_FILE": AWS_CONFIG,
        "AWS_DEFAULT_REGION": facts.region,
        "PYTHONPATH": "/opt/aws/lib/python3.11/site-packages",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "PCMK_logfile": PACEMAKER_LOG,
        "PCMK_logfacility": "none",
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def hosts(facts: CellFacts) -> str:
    """Lines for /etc/hosts, marked so that boot adds them once."""
    return "".join(f"{node.addresses[0]} {node.name}  # pbx-node\n" for node in facts.nodes)


def aws_config(facts: CellFacts, endpoint_url: str | None) -> str:
    """The AWS configuration file of a node. Credentials are not in it: they come from instance metadata."""
    endpoint = f"endpoint_url = {endpoint_url}\n" if endpoint_url else ""
    return f"[default]\nregion = {facts.region}\noutput = json\n{endpoint}"


def _script(name: str) -> File:
    return File(content=(FIXTURES / "node" / name).read_bytes(), mode=0o755)


def _text(text: str) -> File:
    return File(content=text.encode())
