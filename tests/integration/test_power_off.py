"""A machine that loses its power says goodbye to nobody and leaves on its volume what was flushed, nothing more."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from harness.command import wait_for
from harness.region.disk import Switches
from tests.integration import slots
from tests.integration.data_plane import DataPlane, data_plane

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(60)]

VOLUME = "vol-0rda0000000000001"
LISTENER = """
import socket, threading, time
s = socket.create_server(("0.0.0.0", 7000))
while True:
    c, _ = s.accept()
    c.sendall(b"hello")
    threading.Thread(target=c.recv, args=(100,), daemon=True).start()
    keep = globals().setdefault("keep", []); keep.append(c)
"""


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    with data_plane(slots.own("power")) as plane:
        plane.volumes.create(VOLUME, size_gib=10)
        yield plane


@pytest.fixture
def machine(plane: DataPlane) -> Iterator[str]:
    """Machine 1, on, with the volume as xfs at /srv/pbx."""
    instance_id = plane.launch(1)
    try:
        pid = plane.instances.pid(instance_id)
        assert pid is not None
        plane.volumes.attach(VOLUME, instance_id=instance_id, guest_pid=pid, device="/dev/sdf")
        plane.run(
            1, "dev=$(echo /dev/disk/by-id/*_vol0rda*); mkfs.xfs -q -f $dev; mkdir -p /srv/pbx; mount $dev /srv/pbx"
        )
        yield instance_id
    finally:
        plane.instances.terminate(instance_id)
        plane.volumes.detach(VOLUME, force=True)


def connection(plane: DataPlane) -> socket.socket:
    """An established connection from the host to a process in machine 1."""
    plane.run(1, f"setsid python3 -c '{LISTENER}' >/dev/null 2>&1 </dev/null &")

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection((str(plane.topology.node_address(1)), 7000), timeout=1)
        except OSError:
            return None

    peer = wait_for("a connection", connect, timeout_s=10)
    assert peer.recv(5) == b"hello"
    return peer


def remount(plane: DataPlane, instance_id: str) -> None:
    plane.instances.start(instance_id)
    plane.run(1, "mount /dev/disk/by-id/*_vol0rda* /srv/pbx")


def test_a_peer_sees_neither_fin_nor_rst(plane: DataPlane, machine: str) -> None:
    with connection(plane) as peer:
        plane.instances.power_off(machine)
        peer.settimeout(1.5)
        with pytest.raises(TimeoutError):
            peer.recv(1)


def test_the_control_a_plain_kill_says_goodbye(plane: DataPlane, machine: str) -> None:
    with connection(plane) as peer:
        plane.client.containers.get(f"{plane.topology.cell}-pbx-1").kill()
        peer.settimeout(5)
        with suppress(ConnectionResetError):
            assert peer.recv(1) == b""


def test_synced_writes_stay_and_unsynced_ones_are_gone(plane: DataPlane, machine: str) -> None:
    plane.run(1, "echo one >/srv/pbx/synced; sync; echo two >/srv/pbx/unsynced; echo three >>/srv/pbx/synced")
    plane.instances.power_off(machine)
    remount(plane, machine)
    assert plane.run(1, "ls /srv/pbx; cat /srv/pbx/synced").split() == ["synced", "one"]


def test_links_first_then_the_disk_then_the_machine(plane: DataPlane, machine: str) -> None:
    started = time.monotonic_ns()
    cut_ns = plane.instances.power_off(machine)
    assert started < cut_ns < time.monotonic_ns()
    assert plane.instances.power(machine) == "off"
    assert plane.instances.pid(machine) is None
    assert plane.instances.list() == [machine]
    events = plane.events()
    order = [events.rindex(f'"event":"{name}"') for name in ("links_cut", "volume_power_lost", "instance_off")]
    assert order == sorted(order)


def test_a_guest_that_hangs_in_its_disk_can_be_switched_off(plane: DataPlane, machine: str) -> None:
    plane.volumes.switch(VOLUME, Switches(hang=True))
    plane.run(
        1, "for i in 1 2 3; do (setsid dd if=/dev/zero of=/srv/pbx/f$i bs=1M count=1 oflag=direct &>/dev/null &) done"
    )
    wait_for("requests that hang", lambda: plane.volumes.status(VOLUME)["waiting"] > 0, timeout_s=5)
    started = time.monotonic()
    plane.instances.power_off(machine)
    assert time.monotonic() - started < 20, "it waits for nobody"
    plane.volumes.switch(VOLUME, Switches())
    remount(plane, machine)


def test_a_paused_guest_can_be_switched_off(plane: DataPlane, machine: str) -> None:
    plane.client.containers.get(f"{plane.topology.cell}-pbx-1").pause()
    plane.instances.power_off(machine)
    assert plane.instances.power(machine) == "off"
    remount(plane, machine)


def test_the_second_life_has_fresh_memory_and_the_same_disks(plane: DataPlane, machine: str) -> None:
    plane.run(1, "touch /run/stale /dev/shm/stale /root/kept; echo data >/srv/pbx/kept; sync")
    first = plane.run(1, "ls /dev/nvme*")
    plane.instances.power_off(machine)
    plane.instances.start(machine)
    assert plane.run(1, "ls /run /dev/shm /root").split().count("stale") == 0
    assert "kept" in plane.run(1, "ls /root")
    assert plane.run(1, "ls /dev/nvme*") != first  # the name moves, the link by id is found
    plane.run(1, "mount /dev/disk/by-id/*_vol0rda* /srv/pbx; grep data /srv/pbx/kept")
    plane.run(1, f"ip route show default | grep 'via {plane.topology.router_vpc_address}'")
    plane.run(
        1, "curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token"
    )


def test_an_orderly_shutdown_keeps_what_the_guest_wrote(plane: DataPlane, machine: str) -> None:
    plane.run(1, "echo unsynced >/srv/pbx/file")
    plane.instances.shut_down(machine, timeout_s=10)
    assert '"how":"shut_down"' in plane.events()
    remount(plane, machine)
    assert plane.run(1, "cat /srv/pbx/file") == "unsynced\n"


def test_a_guest_that_does_not_shut_down_in_time_loses_its_power(plane: DataPlane, machine: str) -> None:
    plane.run(
        1, "mkdir -p /etc/pbx-node; printf '#!/bin/sh\\nsleep 60\\n' >/etc/pbx-node/halt; chmod +x /etc/pbx-node/halt"
    )
    plane.run(1, "echo unsynced >/srv/pbx/file")
    plane.instances.shut_down(machine, timeout_s=1)
    assert plane.instances.power(machine) == "off"
    remount(plane, machine)
    assert plane.run(1, "ls /srv/pbx") == ""
