"""Where probes can be tried: what they need of a cell, without a cell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import docker

from harness.command import run, wait_for
from harness.images import wanted
from tests.integration.tiny_pbx import DOMAIN, PASSWORD

PORT = 5060
PBX_IP = "127.0.0.2"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A PBX at a public address, a namespace its clients live in, and one its packets pass through."""

    public_ip: str
    client_pid: int
    router_pid: int
    topology: Any
    profile: Any = field(repr=False)


@contextmanager
def loopback_place(cell: str) -> Iterator[tuple[Place, subprocess.Popen[bytes]]]:
    """A namespace with nothing but a loopback, a tiny PBX at 127.0.0.2, clients at 127.0.0.1, and the PBX's process."""
    client = docker.from_env()
    labels = {"pbx-chaos.cell": cell}
    container = client.containers.run(
        wanted().net, detach=True, auto_remove=True, network_mode="none", cap_add=["NET_ADMIN"], labels=labels
    )
    pbx = None
    try:
        container.reload()
        pid = int(container.attrs["State"]["Pid"])
        pbx = start_pbx(pid)
        profile = SimpleNamespace(
            sip=SimpleNamespace(domain=DOMAIN, udp_port=PORT),
            extensions=SimpleNamespace(first=1000, last=1999, password=PASSWORD),
        )
        place = Place(
            public_ip=PBX_IP,
            client_pid=pid,
            router_pid=pid,
            topology=SimpleNamespace(cell=cell),
            profile=profile,
        )
        yield place, pbx
    finally:
        if pbx is not None:
            pbx.kill()
            pbx.wait(timeout=5)
        container.kill()


def start_pbx(pid: int) -> subprocess.Popen[bytes]:
    """The tiny PBX inside a namespace, once its port is bound."""
    argv = ["nsenter", "-t", str(pid), "-n", sys.executable, "-m", "tests.integration.tiny_pbx", PBX_IP, str(PORT)]
    pbx = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, env=dict(os.environ))

    def bound() -> bool:
        assert pbx.poll() is None, "the tiny PBX died"
        return f"{PBX_IP}:{PORT}" in run(["nsenter", "-t", str(pid), "-n", "-m", "ss", "-lun"], timeout_s=5).stdout

    wait_for("the tiny PBX to listen", bound, timeout_s=10)
    return pbx
