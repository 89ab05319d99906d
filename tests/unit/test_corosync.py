"""corosync.conf: what the policy sets is there, what it leaves out is not."""

from __future__ import annotations

import pytest

from harness.cell.corosync import corosync_conf
from harness.cell.policy import Corosync
from harness.errors import UsageError
from tests.unit.cells import facts


def keys(text: str) -> dict[str, str]:
    rows = (line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)
    return {row[0]: row[1] for row in rows}


def test_defaults_leave_every_timer_to_corosync() -> None:
    text = corosync_conf(Corosync(), facts())
    assert not {"token", "token_coefficient", "consensus", "join", "wait_for_all"} & set(keys(text))
    assert text.count("{") == text.count("}")


def test_what_a_policy_sets_is_written() -> None:
    text = corosync_conf(Corosync(token_ms=1000, token_coefficient_ms=0, consensus_ms=1200, wait_for_all=True), facts())
    assert keys(text)["token"] == "1000"
    assert keys(text)["token_coefficient"] == "0"
    assert keys(text)["consensus"] == "1200"
    assert keys(text)["wait_for_all"] == "1"


def test_each_node_has_one_address_per_ring() -> None:
    one = corosync_conf(Corosync(), facts(rings=2))
    two = corosync_conf(Corosync(rings=2), facts(rings=2))
    assert one.count("ring0_addr") == two.count("ring0_addr") == 3
    assert (one.count("ring1_addr"), two.count("ring1_addr")) == (0, 3)


def test_two_rings_need_two_interfaces() -> None:
    with pytest.raises(UsageError, match="pbx-1 has one network interface"):
        corosync_conf(Corosync(rings=2), facts())


def test_only_containers_give_up_real_time_scheduling() -> None:
    assert "sched_rr: no" in corosync_conf(Corosync(), facts())
    assert "sched_rr" not in corosync_conf(Corosync(), facts(containers=False))
