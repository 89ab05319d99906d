"""Where a guest's freezer is, under cgroup v1, the unified hierarchy, and where it can't be used."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.region import machine_power

V1 = "12:freezer:/docker/abc\n5:cpu,cpuacct:/docker/abc\n0::/docker/abc\n"
V2 = "0::/system.slice/docker-abc.scope\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine_power, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine_power, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "42").mkdir(parents=True)
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_cgroup_v1_has_a_hierarchy_of_its_own(host: Path) -> None:
    put(host / "proc/42/cgroup", V1)
    put(host / "cgroup/freezer/docker/abc/freezer.state", "THAWED")
    with machine_power._frozen(42) as folder:
        assert folder == host / "cgroup/freezer/docker/abc"
        assert (folder / "freezer.state").read_text() == "FROZEN"
    assert (folder / "freezer.state").read_text() == "THAWED"


def test_the_unified_hierarchy_has_a_switch(host: Path) -> None:
    put(host / "proc/42/cgroup", V2)
    folder = host / "cgroup/system.slice/docker-abc.scope"
    put(folder / "cgroup.freeze", "0")
    put(folder / "cgroup.events", "populated 1\nfrozen 1\n")
    put(folder / "cgroup.procs", "42\n43\n")
    with machine_power._frozen(42) as found:
        assert found == folder
        assert machine_power._processes(folder) == [42, 43]
        assert (folder / "cgroup.freeze").read_text() == "1"
    assert (folder / "cgroup.freeze").read_text() == "0"


@pytest.mark.parametrize("table", [V1, V2, "12:freezer:/\n0::/\n", ""])
def test_without_a_freezer_the_kill_goes_on_without(host: Path, table: str) -> None:
    put(host / "proc/42/cgroup", table)
    with machine_power._frozen(42) as folder:
        assert folder is None


def test_a_guest_that_is_gone_has_neither_links_nor_freezer(host: Path) -> None:
    assert machine_power.host_links(77) == ()
    assert machine_power._freezer(77) is None


def test_the_root_group_is_never_frozen(host: Path) -> None:
    put(host / "proc/42/cgroup", "12:freezer:/\n")
    put(host / "cgroup/freezer/freezer.state", "THAWED")
    assert machine_power._freezer(42) is None


@pytest.mark.parametrize(("number", "told"), [(errno.ENODEV, False), (errno.EPERM, True)])
def test_a_link_that_the_kernel_does_not_cut_is_told(number: int, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(number, "no")

    monkeypatch.setattr(machine_power.fcntl, "ioctl", refuse)
    with pytest.raises(OSError) if told else nullcontext():
        machine_power.set_link("veth0", up=False)
