"""What is pushed to a node."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from harness.cell.guest import (
    FIXTURES,
    agent_files,
    aws_config,
    cluster_files,
    environment,
    hosts,
    profile_files,
    system_files,
)
from harness.cell.node import File, archive, unpacked
from harness.clock import WallOffset
from harness.collect import parse_alerts
from tests.unit.cells import facts


def test_the_cib_belongs_to_pacemaker_alone() -> None:
    cib = cluster_files(corosync_conf="", cib="<cib/>")["/var/lib/pacemaker/cib/cib.xml"]
    assert (cib.uid, cib.gid, cib.mode) == (100, 101, 0o600)


def test_scripts_are_executable_and_name_their_shell() -> None:
    files = system_files(facts(), facts().nodes[0], endpoint_url=None)
    scripts = [files[path] for path in ("/etc/pbx-node/boot", "/etc/pbx-node/halt", "/usr/local/lib/pbx-node/alert")]
    assert all(script.mode == 0o755 and script.content.startswith(b"#!/bin/sh\n") for script in scripts)


def test_the_endpoint_is_configured_only_where_it_is_not_aws() -> None:
    assert "endpoint_url = http://198.18.0.1:4566\n" in aws_config(facts(), "http://198.18.0.1:4566")
    assert "endpoint_url" not in aws_config(facts(), None)


def test_the_environment_of_a_node_is_its_own() -> None:
    second = dict(line.split("=", 1) for line in environment(facts(), facts().nodes[1]).splitlines())
    assert second["PBX_NODE"] == "pbx-2"
    assert second["PBX_PRIVATE_IP"] == "198.18.0.12"
    assert second["PBX_PUBLIC_IP"] == "203.0.113.1"
    assert second["AWS_CONFIG_FILE"] == "/etc/pbx-node/aws-config"


def test_every_node_knows_every_name() -> None:
    assert hosts(facts()).count("# pbx-node") == 3


def test_agents_and_profiles_keep_their_place_and_their_executable_bit(tmp_path: Path) -> None:
    (tmp_path / "awsebs").write_text("x")
    (tmp_path / "fence_pbx_aws").write_text("x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "ec2.py").write_text("x")
    assert sorted(agent_files(tmp_path)) == [
        "/usr/lib/ocf/resource.d/pbxha/awsebs", "/usr/local/lib/pbx-node/ec2.py", "/usr/sbin/fence_pbx_aws",
    ]  # fmt: skip
    (tmp_path / "sub" / "start").write_text("x")
    (tmp_path / "sub" / "start").chmod(0o755)
    files = profile_files("p", tmp_path)
    assert files["/usr/local/lib/pbx/p/sub/start"].mode == 0o755
    assert files["/usr/local/lib/pbx/p/awsebs"].mode == 0o644


def test_an_archive_keeps_content_mode_and_owner() -> None:
    data = archive({"/a/b": File(content=b"12", mode=0o600, uid=100, gid=101)})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (entry,) = tar.getmembers()
    assert (entry.name, entry.mode, entry.uid, entry.gid) == ("a/b", 0o600, 100, 101)
    assert unpacked(data) == b"12"


@pytest.mark.parametrize(("usec", "fraction"), [("12", 0.000012), ("069000", 0.069), ("928069", 0.928069)])
def test_the_alert_agent_writes_lines_that_are_read_back(tmp_path: Path, usec: str, fraction: float) -> None:
    sink = tmp_path / "alerts.jsonl"
    given = {
        "CRM_alert_timestamp_epoch": "1795569734",
        "CRM_alert_timestamp_usec": usec,
        "CRM_alert_kind": "resource",
        "CRM_alert_node": "pbx-2",
        "CRM_alert_task": "start",
        "CRM_alert_rsc": "pbx",
        "CRM_alert_desc": 'a "quoted" \\ reason',
        "CRM_alert_rc": "0",
        "CRM_alert_exec_time": "13",
        "CRM_alert_recipient": str(sink),
    }
    subprocess.run([str(FIXTURES / "node" / "alert")], env={**os.environ, **given}, check=True, timeout=5)
    (line,) = sink.read_text().splitlines()
    assert json.loads(line)["time_s"] == pytest.approx(1795569734 + fraction, abs=1e-6)
    (alert,) = parse_alerts([line], WallOffset(offset_ns=0, error_ns=1))
    assert (alert["node"], alert["rsc"], alert["rc"], alert["exec_ms"]) == ("pbx-2", "pbx", 0, 13)
    assert alert["desc"] == "a quoted  reason"
