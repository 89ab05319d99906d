"""The environment says what a run ran on, and names neither a machine nor its folders."""

from __future__ import annotations

import json
import platform
import sys

import pytest

from harness.environment import describe


def test_names_no_machine_and_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/pbx-chaos", "run", "x", "--out=/home/me/runs", "/srv/mine.toml"])
    facts = describe()
    assert facts["command"] == ["pbx-chaos", "run", "x", "--out=runs", "mine.toml"]
    assert platform.node() not in json.dumps(facts)


def test_has_what_tells_two_hosts_apart() -> None:
    facts = describe()
    assert {
        "pbx_chaos",
        "python",
        "kernel",
        "machine",
        "cpus",
        "memory_bytes",
        "distribution",
        "libraries",
    } <= facts.keys()
    assert facts["libraries"]["boto3"]
