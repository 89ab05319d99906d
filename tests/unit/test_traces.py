"""What is looked for on a node after a run, with stand-ins for the tools that list it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.cell.traces import LOOK

HEALTHY = "table ip nat"
PLAIN = "qdisc noqueue 0: dev lo root refcnt 2\nqdisc noqueue 0: dev eth0 root refcnt 2"


def look(tmp_path: Path, *, nft: str | None = HEALTHY, tc: str | None = PLAIN) -> list[str]:
    """The lines LOOK prints, without those about processes (this host's); None is a tool that fails."""
    for name, said in (("nft", nft), ("tc", tc)):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\nexit 1\n" if said is None else f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
        tool.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", LOOK], capture_output=True, text=True, timeout=20, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    )
    return [line for line in done.stdout.splitlines() if not line.startswith("stopped ")]


def test_a_healthy_node_has_none(tmp_path: Path) -> None:
    assert look(tmp_path) == []
    assert look(tmp_path, nft="") == []


@pytest.mark.parametrize(
    ("tools", "found"),
    [
        ({"nft": f"{HEALTHY}\ntable inet partition"}, ["filter table inet partition"]),
        ({"tc": "qdisc tbf 8001: dev eth0 root refcnt 2 rate 1Mbit"}, ["qdisc tbf on eth0"]),
        ({"nft": None}, ["packet filters can't be listed"]),
        ({"tc": None}, ["traffic shaping can't be listed"]),
    ],
)
def test_every_trace_is_a_line_and_blindness_too(
    tools: dict[str, str | None], found: list[str], tmp_path: Path
) -> None:
    assert look(tmp_path, **tools) == found
