"""What each fault says of itself, what it refuses, and what of it any process can rebuild from the undo journal."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import InfrastructureError
from harness.faults.address import address_moved, address_taken
from harness.faults.disk import volume_corrupts, volume_errors, volume_hangs, volume_lies, volume_slow
from harness.faults.network import black_hole, loss, partition
from harness.faults.node import freeze, host_fails, shut_down
from harness.faults.operator import maintenance, move, standby
from harness.faults.process import crash, hang
from harness.faults.resources import no_capacity, no_descriptors, slow_cpu, volume_full
from harness.faults.types import Fault, dump, load
from harness.topology import Topology


def node(number: int) -> SimpleNamespace:
    return SimpleNamespace(name=f"pbx-{number}", private_ip=f"198.18.0.{10 + number}", container=f"c{number}")


def cell() -> Any:
    nodes = [node(1), node(2), node(3)]
    return SimpleNamespace(
        nodes=nodes,
        node=lambda name: next(n for n in nodes if n.name == name),
        cluster=lambda: SimpleNamespace(active="pbx-2", dc="pbx-1"),
        topology=Topology(cell="x", slot=0),
        profile=SimpleNamespace(name="mine", main_process="pbxd", processes={"database": ("postgres",)}),
    )


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (crash("active"), "crash pbx on active"),
        (hang("standby", "database"), "hang database on standby"),
        (partition("active"), "cut between active and peers"),
        (partition("pbx-1", "api", direction="out"), "cut between pbx-1 and api, out only"),
        (loss("dc", 0.25, "clients"), "25% loss between dc and clients"),
        (black_hole("active", 1400, "pbx-3"), "cut of packets above 1400 bytes between active and pbx-3"),
        (volume_hangs(), "volume: hangs"),
        (volume_errors(read=1, flush=0.5), "volume: EIO on 100% of reads, 50% of flushes"),
        (volume_slow(latency_ms=200), "volume: slow, +200 ms"),
        (volume_corrupts(0.01), "volume: 1% of reads corrupted"),
        (volume_lies(), "volume: lying flushes"),
        (freeze("active"), "freeze active"),
        (shut_down("standby"), "shut down standby"),
        (host_fails("active"), "host of active fails"),
        (standby("active"), "standby of active"),
        (move(), "move away from active"),
        (maintenance(), "maintenance mode"),
        (slow_cpu("active", 0.2), "20% of a core for active"),
        (no_descriptors("active", "database"), "no file descriptors for database on active"),
        (volume_full(), "volume: full"),
        (no_capacity(), "no capacity in the zone"),
        (address_moved(), "address moved to standby"),
        (address_taken(), "address taken from everybody"),
    ],
)
def test_it_has_a_name_and_is_what_was_written_down(fault: Fault, name: str) -> None:
    assert fault.name == name
    assert load(dump(fault)) == fault
    assert fault.unmet(cell()) is None
    roles = {"active": "pbx-2", "standby": "pbx-1", "dc": "pbx-1"}
    aim = getattr(fault, "target", None)
    assert fault.resolved(cell()).name == (name.replace(f" {aim}", f" {roles.get(aim, aim)}") if aim else name)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: loss("active", 0), "loss_ratio is above 0"),
        (lambda: loss("active", 1.5), "at most 1"),
        (lambda: black_hole("active", 0), "above_bytes"),
        (lambda: partition("active", direction="up"), "direction is both, in or out"),
        (lambda: volume_errors(), "say what fails"),
        (lambda: volume_errors(read=2), "read_error_ratio must be between 0 and 1"),
        (lambda: volume_slow(), "say how slow"),
        (lambda: host_fails("active", impaired_s=-1), "impaired_s is"),
        (lambda: slow_cpu("active", 2), "share is that of one core"),
    ],
)
def test_what_can_not_be_is_refused_where_it_is_written(make: Callable[[], Fault], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_nobody_to_hit_is_known_before_anything_starts() -> None:
    assert partition("active", "everybody").unmet(cell()) == (
        "'everybody' is nobody to cut a node off from; there are: peers, clients, api, and the nodes"
    )
    assert "declares no 'media'; there are: pbx, database, corosync" in str(crash("active", "media").unmet(cell()))
    assert freeze("pbx-1").unmet(SimpleNamespace(nodes=[SimpleNamespace(name="pbx-1")])) is not None  # type: ignore[arg-type]


def test_both_ends_of_a_cut_may_be_roles() -> None:
    assert partition("active", "dc").resolved(cell()) == partition("pbx-2", "pbx-1")
    lonely = cell()
    lonely.cluster = lambda: SimpleNamespace(active=None, dc=None)
    with pytest.raises(InfrastructureError, match="no node is active"):
        partition("active").resolved(lonely)


def test_the_filter_says_who_which_way_and_how_much() -> None:
    peers = partition("pbx-1").rules(cell())
    assert "ip saddr { 198.18.0.12, 198.18.0.13 } counter drop" in peers
    assert "ip daddr { 198.18.0.12, 198.18.0.13 } counter drop" in peers
    one_way = partition("pbx-1", "pbx-3", direction="in").rules(cell())
    assert "saddr { 198.18.0.13 }" in one_way and "daddr" not in one_way
    assert "!= { 198.18.0.0/24, 198.18.1.1, 127.0.0.0/8, 169.254.0.0/16 }" in partition("pbx-1", "clients").rules(
        cell()
    )
    assert "numgen random mod 10000 < 2500 counter drop" in loss("pbx-1", 0.25).rules(cell())
    assert "meta length > 1400 counter drop" in black_hole("pbx-1", 1400).rules(cell())


def test_two_cuts_have_tables_of_their_own() -> None:
    tables = {partition("pbx-1").table, partition("pbx-1", "api").table, partition("pbx-1", direction="in").table}
    assert len(tables) == 3
