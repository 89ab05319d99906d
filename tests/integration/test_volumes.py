"""Volumes in guests: found by id, one machine at a time, lost writes, dead servers, and clean-up over all of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from harness import engine
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.region import background
from harness.region import cleanup as clean_up
from harness.region.cleanup import cleanup, known_cells, leftovers
from harness.region.disk import Switches
from harness.region.volumes import VolumeBusy, Volumes
from tests.integration import slots
from tests.integration.data_plane import DataPlane, data_plane
from tests.integration.hosts import traces

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

VOLUME = "vol-0rda0000000000002"
BY_ID = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0rda0000000000002"


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    with data_plane(slots.own("volumes")) as plane:
        yield plane


@pytest.fixture
def machine(plane: DataPlane) -> Iterator[str]:
    """Machine 1, on, with a new volume attached."""
    plane.volumes.create(VOLUME, size_gib=10)
    instance_id = plane.launch(1)
    attach(plane, instance_id)
    yield instance_id
    plane.instances.terminate(instance_id)
    plane.volumes.detach(VOLUME, force=True)
    plane.volumes.delete(VOLUME)


def attach(plane: DataPlane, instance_id: str) -> str:
    pid = plane.instances.pid(instance_id)
    assert pid is not None
    return plane.volumes.attach(VOLUME, instance_id=instance_id, guest_pid=pid, device="/dev/sdf")


def server_pid(plane: DataPlane) -> int:
    [pid] = [p for p, command in background.marked(plane.topology.cell).items() if "volume_server" in command]
    return pid


def test_the_device_is_found_by_volume_id_and_its_name_moves(plane: DataPlane, machine: str) -> None:
    first = plane.run(1, f"readlink -f {BY_ID}; test -b {BY_ID}")
    plane.volumes.detach(VOLUME)
    assert plane.run(1, "ls /dev/nvme* /dev/disk/by-id", check=False).split() == ["/dev/disk/by-id:"]
    assert plane.run(1, f"mkdir -p /dev/disk; ls {BY_ID}", check=False) == ""
    attach(plane, machine)
    assert plane.run(1, f"readlink -f {BY_ID}") != first


def test_detaching_while_mounted_is_refused_and_works_once_unmounted(plane: DataPlane, machine: str) -> None:
    plane.run(1, f"mkfs.xfs -q {BY_ID}; mkdir -p /m; mount {BY_ID} /m; echo data >/m/f")
    with pytest.raises(VolumeBusy):
        plane.volumes.detach(VOLUME)
    place = plane.volumes.attachment(VOLUME)
    assert place is not None and place.mounted_in_guest and place.instance_id == machine
    plane.run(1, "umount /m")
    plane.volumes.detach(VOLUME)
    assert plane.volumes.attachment(VOLUME) is None
    attach(plane, machine)
    assert plane.run(1, f"mount {BY_ID} /m; cat /m/f") == "data\n"


def test_a_volume_has_one_machine(plane: DataPlane, machine: str) -> None:
    with pytest.raises(VolumeBusy):
        plane.volumes.attach(
            VOLUME, instance_id="i-another", guest_pid=plane.instances.pid(machine) or 0, device="/dev/sdf"
        )
    with pytest.raises(OSError):
        (plane.topology.state_dir / "volumes" / VOLUME / "disk").open("r+b").close()


def test_detaching_by_force_gives_io_errors_and_frees_the_volume(plane: DataPlane, machine: str) -> None:
    plane.run(1, f"mkfs.xfs -q {BY_ID}; mkdir -p /m; mount {BY_ID} /m; echo kept >/m/f; sync; echo lost >/m/g")
    plane.volumes.detach(VOLUME, force=True)
    assert plane.volumes.attachment(VOLUME) is None
    assert "Input/output error" in plane.run(1, "dd if=/m/f of=/dev/null bs=4096 iflag=direct 2>&1 || true")
    other = plane.launch(2)
    try:
        pid = plane.instances.pid(other)
        assert pid is not None
        plane.volumes.attach(VOLUME, instance_id=other, guest_pid=pid, device="/dev/sdf")
        # One kernel here where AWS has two: it still knows the file system of the first machine, hence nouuid.
        assert plane.run(2, f"mkdir -p /m; mount -o nouuid {BY_ID} /m; ls /m") == "f\n"
    finally:
        plane.instances.terminate(other)
        plane.volumes.detach(VOLUME)


def test_injected_errors_reach_the_guest_and_heal(plane: DataPlane, machine: str) -> None:
    plane.volumes.switch(VOLUME, Switches(write_error_ratio=1.0))
    write = f"dd if=/dev/zero of={BY_ID} bs=4096 count=1 oflag=direct 2>&1 || true"
    assert "Input/output error" in plane.run(1, write)
    plane.volumes.switch(VOLUME, Switches())
    assert "error" not in plane.run(1, write)


def test_another_process_of_ours_takes_over(plane: DataPlane, machine: str) -> None:
    successor = Volumes(topology=plane.topology, journal=plane.volumes._journal)
    assert successor.list() == [VOLUME]
    assert successor.attached_to(machine) == [VOLUME]
    successor.detach(VOLUME)
    attach(plane, machine)


def test_a_killed_server_is_replaced_and_flushed_data_is_there(plane: DataPlane, machine: str) -> None:
    plane.run(1, f"mkfs.xfs -q {BY_ID}; mkdir -p /m; mount {BY_ID} /m; echo kept >/m/f; sync; echo lost >/m/g")
    pid = server_pid(plane)
    os.kill(pid, signal.SIGKILL)
    wait_for("the end of the server", lambda: not background.alive(pid), timeout_s=5)
    plane.instances.power_off(machine)
    plane.instances.start(machine)
    assert plane.run(1, f"mount {BY_ID} /m; ls /m") == "f\n"


def test_a_stopped_server_does_not_keep_a_machine_from_losing_its_power(plane: DataPlane, machine: str) -> None:
    plane.run(1, f"mkfs.xfs -q {BY_ID}; mkdir -p /m; mount {BY_ID} /m; echo kept >/m/f; sync")
    os.kill(server_pid(plane), signal.SIGSTOP)
    plane.run(1, "(setsid dd if=/dev/zero of=/m/g bs=1M count=1 oflag=direct &>/dev/null &)")
    plane.instances.power_off(machine)
    assert '"answered":false' in plane.events()
    plane.instances.start(machine)
    plane.run(1, f"mount {BY_ID} /m; cat /m/f")


@pytest.mark.parametrize("ruin", ["as it is", "server killed", "server stopped", "guest paused", "disk hangs"])
def test_clean_up_takes_everything_away_whatever_the_ruin(ruin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_up, "GONE_TIMEOUT_S", 3)  # half of it is what a guest with a deaf disk is waited for
    with data_plane(slots.own("ruins", slots.SECOND)) as plane:
        plane.volumes.create(VOLUME, size_gib=10)
        attach(plane, plane.launch(1))
        plane.run(1, f"mkfs.xfs -q {BY_ID}; mkdir -p /m; mount {BY_ID} /m; echo x >/m/f")
        if ruin == "server killed":
            os.kill(server_pid(plane), signal.SIGKILL)
        if ruin == "server stopped":
            os.kill(server_pid(plane), signal.SIGSTOP)
        if ruin == "guest paused":
            plane.client.containers.get(f"{plane.topology.cell}-pbx-1").pause()
        if ruin == "disk hangs":
            plane.volumes.switch(VOLUME, Switches(hang=True))
            plane.run(1, "(setsid dd if=/dev/zero of=/m/g bs=1M count=1 oflag=direct &>/dev/null &)")
        assert plane.topology.cell in known_cells()
        assert len(leftovers(plane.topology)) >= 5
        removed = cleanup(plane.topology)
        assert not [line for line in removed if "NOT" in line]
        assert traces(plane.topology.cell) == leftovers(plane.topology) == cleanup(plane.topology) == []
        assert plane.topology.cell not in known_cells()


def test_clean_up_without_docker_does_what_it_can_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise InfrastructureError("no engine")

    with data_plane(slots.own("ruins", slots.SECOND)) as plane:
        plane.volumes.create(VOLUME, size_gib=10)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "connect", refuse)
            removed = cleanup(plane.topology)
        assert any("docker does not answer" in line for line in removed)
        assert background.marked(plane.topology.cell) == {}
        assert leftovers(plane.topology) == [f"network {plane.topology.vpc_network}"]
