"""The planted defects of the stand-in PBX are seen to act: switched on, the PBX killed and started again.

Those of single calls, `one-way` and `lose-data` act in test_controls.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.command import wait_for
from tests.integration.pbx_bench import Bench, heard_both_ways, pbx_bench
from tests.phones import Call, Phone

pytestmark = [pytest.mark.integration, pytest.mark.alone]

DAEMONS = "kamailio|rtpengine|redis-server|postgres|pbx-.*"
SILENCE_S = 0.6


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pbx_bench(tmp_path_factory.mktemp("volume")) as bench:
        bench.start(bench.nodes[0])
        yield bench


@contextmanager
def planted(bench: Bench, *variant: str) -> Iterator[tuple[Phone, Phone, Call]]:
    """Two phones in a call that was set up before the PBX died and came back with this defect."""
    node = bench.nodes[0]
    caller, callee = bench.phone(1000), bench.phone(1001)
    caller.register()
    callee.register()
    _, call = caller.call("1001")
    assert call is not None
    heard_both_ways(call, callee.calls[call.call_id])
    bench.command(node, "variant", *variant)
    try:
        restart(bench)
        yield caller, callee, call
    finally:
        bench.command(node, "variant", "--clear")
        caller.hang_up(call, timeout_s=0.5)
        for phone in (caller, callee):
            phone.close()
        restart(bench)


def restart(bench: Bench) -> None:
    node = bench.nodes[0]
    node.run(["pkill", "-KILL", "-x", DAEMONS], timeout_s=5)
    bench.start(node)


def silent(*calls: Call) -> bool:
    """Whether nothing arrives at these ends."""
    before = [call.media.received for call in calls]
    time.sleep(SILENCE_S)
    return before == [call.media.received for call in calls]


def test_without_a_defect_the_call_goes_on(bench: Bench) -> None:
    with planted(bench, "--clear") as (caller, callee, call):
        heard_both_ways(call, callee.calls[call.call_id])
        ended = caller.hang_up(call)
        assert ended is not None and ended.code == 200


def test_wipe_media_leaves_calls_without_audio(bench: Bench) -> None:
    with planted(bench, "wipe-media") as (caller, callee, call):
        assert silent(call, callee.calls[call.call_id])
        ended = caller.hang_up(call)
        assert ended is not None and ended.code == 200


def test_wipe_dialogs_makes_bye_an_unknown_call(bench: Bench) -> None:
    with planted(bench, "wipe-dialogs") as (caller, callee, call):
        heard_both_ways(call, callee.calls[call.call_id])
        ended = caller.hang_up(call)
        assert ended is not None and ended.code == 481


def test_reinvite_brings_audio_back_by_the_pbx_itself(bench: Bench) -> None:
    with planted(bench, "reinvite") as (caller, callee, call):
        accepted = callee.calls[call.call_id]
        heard_both_ways(call, accepted, timeout_s=8)
        assert (call.reinvited, accepted.reinvited) == (1, 1)
        ended = caller.hang_up(call)
        assert ended is not None and ended.code == 200
        assert accepted.ended


def test_bye_everyone_ends_every_call(bench: Bench) -> None:
    with planted(bench, "bye-everyone", "0.2") as (_, callee, call):
        accepted = callee.calls[call.call_id]
        wait_for(
            "BYE at both ends", lambda: call.ended and accepted.ended, timeout_s=10,
            last_seen=lambda: f"caller {call.ended}, callee {accepted.ended}",
        )  # fmt: skip
        assert call.ended and accepted.ended


def test_no_media_answers_options_and_carries_nothing(bench: Bench) -> None:
    with planted(bench, "no-media") as (caller, callee, call):
        assert silent(call, callee.calls[call.call_id])
        answered = caller.options()
        assert answered is not None and answered.code == 200
        assert bench.agent(bench.nodes[0], "monitor").ok
        answered, another = caller.call("1001")
        assert answered is not None and another is not None, answered
        assert silent(another, callee.calls[another.call_id])


def test_no_registrations_finds_nobody(bench: Bench) -> None:
    with planted(bench, "no-registrations") as (caller, _, _):
        answered, _ = caller.call("1001")
        assert answered is not None and answered.code == 480


def test_slow_start_takes_so_long(bench: Bench) -> None:
    began = time.monotonic()
    with planted(bench, "slow-start", "2"):
        assert time.monotonic() - began > 2


def test_an_unknown_variant_is_refused(bench: Bench) -> None:
    done = bench.command(bench.nodes[0], "variant", "wipe-everything", check=False)
    assert done.code == 1
    assert "there are wipe-media" in done.stderr
