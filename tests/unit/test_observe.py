"""The ownership observer on a made-up host: cgroups and /proc in a folder, no containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cell.observe import Host, Observer, PowerBook, Watched, WatchedNode, has_mount, invisible

VOLUME = "300 29 7:3 / /srv/pbx rw,noatime - xfs /dev/pbx-data rw\n"
ROOT = "29 1 0:44 / / rw - overlay overlay rw\n"


class MadeUpHost:
    """Two nodes; processes come and go as the test says."""

    def __init__(self, root: Path) -> None:
        self.state_dir = root / "state"
        self.state_dir.mkdir()
        self.host = Host(proc=root / "proc", cgroups=root / "cgroup")
        self.pids: dict[str, set[int]] = {}
        nodes = tuple(
            WatchedNode(name=f"pbx-{n}", instance_id=f"i-{n}", private_ip=f"198.18.0.1{n}", container=f"c{n}")
            for n in (1, 2)
        )
        watched = Watched(nodes=nodes, data_dir="/srv/pbx", process="kamailio", public_ip="203.0.113.1")
        self.observer = Observer(watched=watched, state_dir=self.state_dir, host=self.host)
        self.address("198.18.0.11")
        for n in (1, 2):
            self.process(f"c{n}", 100 * n, "tini", inner=1)

    def process(self, container: str, pid: int, comm: str, *, inner: int = 50, state: str = "S") -> None:
        self.pids.setdefault(container, set()).add(pid)
        folder = self.host.proc / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stat").write_text(f"{pid} ({comm}) {state} 1 1 1")
        (folder / "status").write_text(f"Name:\t{comm}\nNSpid:\t{pid}\t{inner}\n")
        (folder / "mountinfo").write_text(ROOT)
        self._cgroup(container)

    def mount(self, pid: int) -> None:
        (self.host.proc / str(pid) / "mountinfo").write_text(ROOT + VOLUME)

    def end(self, container: str, *pids: int) -> None:
        self.pids[container] -= set(pids)
        self._cgroup(container)

    def journal(self, **row: object) -> None:
        with (self.state_dir / "region-events.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def address(self, private: str | None) -> None:
        table = {"203.0.113.1": private} if private else {}
        (self.state_dir / "addresses.json").write_text(json.dumps(table))

    def value(self) -> dict[str, object]:
        op = self.observer.sample()
        assert op.type == "ok", op.error
        return {key: op.value[key] for key in ("mounted", "pbx", "address", "powered")}

    def _cgroup(self, container: str) -> None:
        folder = self.host.cgroups / "pids" / "docker" / container
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in sorted(self.pids[container])))
        if not self.pids[container]:
            (folder / "cgroup.procs").unlink()
            folder.rmdir()


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUpHost:
    return MadeUpHost(tmp_path)


def test_idle_nodes_own_nothing_but_the_address(made_up: MadeUpHost) -> None:
    assert made_up.value() == {"mounted": [], "pbx": [], "address": "pbx-1", "powered": ["pbx-1", "pbx-2"]}


def test_the_owner_of_everything(made_up: MadeUpHost) -> None:
    made_up.mount(100)
    made_up.process("c1", 110, "kamailio")
    assert made_up.value() == {
        "mounted": ["pbx-1"], "pbx": ["pbx-1"], "address": "pbx-1", "powered": ["pbx-1", "pbx-2"],
    }  # fmt: skip


def test_two_owners_are_seen(made_up: MadeUpHost) -> None:
    for container, init in (("c1", 100), ("c2", 200)):
        made_up.mount(init)
        made_up.process(container, init + 10, "kamailio")
    assert made_up.value()["mounted"] == made_up.value()["pbx"] == ["pbx-1", "pbx-2"]


def test_an_orderly_move_between_two_looks_is_not_two_owners(
    made_up: MadeUpHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter([{"mounted": ["pbx-1", "pbx-2"], "pbx": ["pbx-2"]}, {"mounted": ["pbx-2"], "pbx": ["pbx-2"]}])
    monkeypatch.setattr(Observer, "_glance", lambda _: {"address": None, "powered": [], **next(seen)})
    assert made_up.value()["mounted"] == ["pbx-2"]


def test_a_shell_that_becomes_the_pbx_is_noticed(made_up: MadeUpHost) -> None:
    made_up.process("c1", 110, "sh")
    assert made_up.value()["pbx"] == []
    made_up.process("c1", 110, "kamailio")
    assert made_up.value()["pbx"] == ["pbx-1"]


def test_a_zombie_is_not_the_pbx_and_a_dead_one_is_forgotten(made_up: MadeUpHost) -> None:
    made_up.process("c1", 110, "kamailio")
    assert made_up.value()["pbx"] == ["pbx-1"]
    made_up.process("c1", 110, "kamailio", state="Z")
    assert made_up.value()["pbx"] == []
    made_up.process("c1", 111, "kamailio")
    made_up.end("c1", 110, 111)
    assert made_up.value()["pbx"] == []


def test_a_node_without_power_owns_nothing_although_its_container_is_still_there(made_up: MadeUpHost) -> None:
    made_up.mount(100)
    made_up.process("c1", 110, "kamailio")
    made_up.journal(event="links_cut", instance_id="i-1", time_ns=1)
    assert made_up.value() == {"mounted": [], "pbx": [], "address": "pbx-1", "powered": ["pbx-2"]}
    made_up.end("c1", 100, 110)
    made_up.process("c1", 120, "tini", inner=1)
    made_up.journal(event="instance_on", instance_id="i-1", time_ns=2)
    assert made_up.value()["powered"] == ["pbx-1", "pbx-2"]


def test_a_container_that_is_gone_is_off(made_up: MadeUpHost) -> None:
    made_up.end("c2", 200)
    assert made_up.value()["powered"] == ["pbx-1"]


def test_a_second_life_has_a_new_init(made_up: MadeUpHost) -> None:
    made_up.mount(100)
    assert made_up.value()["mounted"] == ["pbx-1"]
    made_up.end("c1", 100)
    made_up.process("c1", 130, "tini", inner=1)
    assert made_up.value()["mounted"] == []


def test_an_address_nobody_has(made_up: MadeUpHost) -> None:
    made_up.address(None)
    assert made_up.value()["address"] is None


def test_an_observer_that_cannot_look_says_so(made_up: MadeUpHost) -> None:
    (made_up.state_dir / "addresses.json").unlink()
    op = made_up.observer.sample()
    assert op.type == "info"
    assert op.error is not None
    assert "addresses.json" in op.error


def test_a_torn_line_of_the_journal_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    book = PowerBook(journal=path)
    assert book.lost() == set()
    path.write_text('{"event": "links_cut", "instance')
    assert book.lost() == set()
    path.write_text('{"event": "links_cut", "instance_id": "i-1"}\n')
    assert book.lost() == {"i-1"}


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        (ROOT + VOLUME, True),
        (ROOT, False),
        ("300 29 0:51 / /srv/pbx rw - tmpfs tmpfs rw\n", False),
        ("300 29 7:3 / /srv/pbx/old rw - xfs /dev/loop3 rw\n", False),
        ("", False),
    ],
)
def test_only_a_block_device_on_the_data_dir_counts(mountinfo: str, expected: bool) -> None:
    assert has_mount(mountinfo, "/srv/pbx") is expected


def test_a_host_on_which_no_node_can_be_seen_is_told_before_the_first_sample(tmp_path: Path) -> None:
    made_up = MadeUpHost(tmp_path)
    watched = made_up.observer.watched
    assert invisible(watched, made_up.host) == []
    assert invisible(watched, Host(proc=made_up.host.proc, cgroups=tmp_path / "elsewhere")) == ["pbx-1", "pbx-2"]
