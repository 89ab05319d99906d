"""The fate of a held call, each of its four parts, from planted histories."""

from dataclasses import replace
from typing import Any

import pytest

from harness.checkers.call_recovery import call_recovery
from harness.clients.rtp.silence import Silence, calls_from_ops
from harness.fates import Fate, HeldCall, band_of, fate_of, held_calls, media_outage, summary
from harness.history import Op
from tests.unit import synthetic
from tests.unit.synthetic import at, op

FAULT_S, UNAIDED_S, END_S = 5.0, 40.0, 46.0
Gaps = dict[tuple[str, str], list[Silence]]


def silence(begin_s: float, end_s: float | None) -> Silence:
    return Silence(from_ns=at(begin_s), to_ns=None if end_s is None else at(end_s))


def event(seconds: float, side: str, name: str, call: str = "c1", **value: Any) -> Op:
    return op(seconds, "call_event", "ok", {"call": call, "side": side, "event": name, **value})


def ops(*more: Op, call: str = "c1", kind: str = "ip_phone") -> list[Op]:
    asked = {"call": call, "kind": kind, "transport": "udp", "caller": "1000", "callee": "1001"}
    return [
        op(-3.0, "call", "invoke", asked),
        op(-2.8, "call", "ok", {"call": call, "setup_ms": 180.0}),
        *more,
        op(UNAIDED_S, "unaided", "ok", {"call": call}),
    ]


def fate(*more: Op, caller: list[Silence] | None = None, callee: list[Silence] | None = None) -> Fate:
    heard: Gaps = {}
    for side, found in (("caller", caller), ("callee", callee)):
        heard[("c1", side)] = found if found is not None else []
    (held,) = held_calls(ops(*more), heard)
    return fate_of(held, fault_ns=at(FAULT_S), end_ns=at(END_S))


@pytest.mark.parametrize(
    ("gap_s", "band"),
    [(0.0, "seamless"), (0.299, "seamless"), (0.3, "recovered"), (4.999, "recovered"), (5.0, "degraded"),
     (15.0, "late"), (31.0, "late"), (None, "never")],
)  # fmt: skip
def test_a_gap_has_a_band(gap_s: float | None, band: str) -> None:
    assert band_of(gap_s) == band


def test_the_longer_gap_of_the_two_directions_decides() -> None:
    found = fate(caller=[silence(5.0, 5.2)], callee=[silence(5.0, 11.25)])
    assert (found.band, found.direction, found.helped_by) == ("degraded", "both", "nobody")
    assert found.gap_s == {"caller": 0.2, "callee": 6.25}
    assert found.worst_gap_s == 6.25


def test_a_silence_before_the_fault_is_not_its_doing() -> None:
    assert fate(callee=[silence(1.0, 4.9)]).gap_s["callee"] == 0.0


def test_a_direction_that_stays_silent_makes_the_call_one_way() -> None:
    found = fate(caller=[silence(5.0, 6.0)], callee=[silence(5.0, None)])
    assert (found.band, found.direction, found.helped_by, found.decayed) == ("never", "one-way", None, False)
    assert found.worst_gap_s is None


def test_audio_that_comes_back_and_dies_again_has_decayed() -> None:
    found = fate(caller=[silence(5.0, 6.0), silence(13.5, None)], callee=[silence(5.0, 6.0), silence(23.5, None)])
    assert (found.band, found.direction, found.decayed) == ("never", "none", True)


def test_a_side_that_never_heard_anything_is_not_seamless() -> None:
    (held,) = held_calls(ops(), {("c1", "caller"): []})
    assert fate_of(held, fault_ns=at(FAULT_S), end_ns=at(END_S)).direction == "one-way"


def test_a_short_gap_at_the_very_end_is_not_called_lost() -> None:
    found = fate(event(UNAIDED_S + 0.2, "caller", "bye_sent", code=200), caller=[silence(UNAIDED_S - 0.1, None)])
    assert (found.direction, found.band) == ("both", "seamless")


def test_a_re_invite_of_the_pbx_before_the_audio_is_back_is_its_help() -> None:
    gaps = {"caller": [silence(5.0, 9.0)], "callee": [silence(5.0, 9.1)]}
    assert fate(event(8.9, "caller", "reinvite_received"), **gaps).helped_by == "pbx"
    assert fate(event(9.5, "caller", "reinvite_received"), **gaps).helped_by == "nobody"


def test_a_re_invite_that_the_other_end_sent_is_not_the_pbxs() -> None:
    relayed = [event(8.0, "callee", "reinvite_sent", code=200), event(8.1, "caller", "reinvite_received")]
    assert fate(*relayed, caller=[silence(5.0, 9.0)], callee=[silence(5.0, 9.0)]).helped_by == "nobody"


def test_what_only_the_clients_re_invite_brought_back_is_never_but_helped() -> None:
    gaps = {"caller": [silence(5.0, 41.0)], "callee": [silence(5.0, 41.1)]}
    found = fate(event(40.5, "caller", "reinvite_sent", code=200), **gaps)
    assert (found.band, found.direction, found.helped_by) == ("never", "none", "client")


def test_help_that_helped_one_way_only_is_no_help() -> None:
    gaps = {"caller": [silence(5.0, 41.0)], "callee": [silence(5.0, None)]}
    assert fate(event(40.5, "caller", "reinvite_sent", code=200), **gaps).helped_by is None


@pytest.mark.parametrize(
    ("events", "dialog"),
    [
        ([], "not asked"),
        ([event(42.0, "caller", "bye_sent", code=200)], "alive"),
        ([event(42.0, "caller", "bye_sent", code=481)], "481"),
        ([event(42.0, "caller", "bye_sent", code=503)], "refused"),
        ([event(42.0, "caller", "bye_sent", code=None)], "silent"),
        ([event(12.0, "callee", "bye_received")], "ended by the PBX"),
        ([event(42.0, "caller", "bye_sent", code=200), event(42.1, "callee", "bye_received")], "alive"),
    ],
)
def test_what_is_left_of_the_dialog(events: list[Op], dialog: str) -> None:
    assert fate(*events).dialog == dialog


def test_a_call_that_the_pbx_ended_is_lost_although_its_ends_were_told_to_be_silent() -> None:
    asked_for = [Silence(from_ns=at(12.0), to_ns=None, held=True)]
    found = fate(event(12.0, "callee", "bye_received"), caller=asked_for, callee=asked_for)
    assert (found.band, found.direction, found.helped_by, found.decayed) == ("never", "none", None, False)


def test_a_call_that_was_not_up_has_no_fate() -> None:
    (held,) = held_calls(ops(event(2.0, "caller", "ended")), {})
    assert not held.was_up(at(FAULT_S))
    assert held.was_up(at(1.0))


def test_results_count_calls_by_fate_and_by_kind() -> None:
    good = fate(caller=[silence(5.0, 6.0)], callee=[silence(5.0, 6.5)])
    lost = replace(fate(caller=[silence(5.0, None)]), call="c2", kind="webrtc", transport="wss")
    rows = summary([good, lost])
    assert rows is not None
    assert (rows["total"], rows["by_fate"]["recovered"], rows["by_fate"]["never"]) == (2, 1, 1)
    assert [(r["kind"], r["total"], r["one_way"], r["gap_s"]) for r in rows["by_kind"]] == [
        ("ip_phone", 1, 0, {"min": 1.5, "median": 1.5, "max": 1.5}),
        ("webrtc", 1, 1, None),
    ]
    assert summary([]) is None


class TestChecker:
    """Planted defects, and the clean control."""

    def verdict(self, *, claimed: tuple[str, ...] = ("ip_phone",), gaps: Gaps | None = None, **limits: Any) -> Any:
        more = [event(42.0, "caller", "bye_sent", call="c1", code=limits.pop("code", 200))]
        history = [*ops(*more), *ops(call="c2", kind="webrtc")]
        heard: Gaps = {(call, side): [silence(5.0, 7.0)] for call in ("c1", "c2") for side in ("caller", "callee")}
        evidence = synthetic.evidence_of([*synthetic.clean_ops(), *history])
        calls = held_calls(history, heard | (gaps or {}))
        return call_recovery(**limits).check(replace(evidence, calls=calls, claimed_kinds=claimed))

    def test_the_clean_run_passes(self) -> None:
        assert self.verdict().verdict == "pass"

    def test_a_lost_direction_fails(self) -> None:
        found = self.verdict(gaps={("c1", "callee"): [silence(5.0, None)]})
        assert (found.verdict, found.why) == ("fail", "0 of 1 ip_phone; 1 of 1 webrtc (not claimed)")
        assert found.evidence

    def test_a_gap_above_the_limit_fails(self) -> None:
        assert self.verdict(within_s=1.5).verdict == "fail"

    def test_a_call_that_can_not_be_ended_any_more_fails(self) -> None:
        assert self.verdict(code=481).verdict == "fail"

    def test_calls_that_nobody_tried_to_end_decide_nothing(self) -> None:
        history = ops()
        heard: Gaps = {("c1", side): [silence(5.0, 7.0)] for side in ("caller", "callee")}
        evidence = synthetic.evidence_of([*synthetic.clean_ops(), *history])
        evidence = replace(evidence, calls=held_calls(history, heard), claimed_kinds=("ip_phone",))
        found = call_recovery().check(evidence)
        assert (found.verdict, found.why) == ("unknown", "1 of 1 ip_phone; nobody tried to end c1")

    def test_a_kind_for_which_nothing_is_claimed_is_told_and_not_judged(self) -> None:
        assert self.verdict(gaps={("c2", "callee"): [silence(5.0, None)]}).verdict == "pass"
        assert self.verdict(gaps={("c2", "callee"): [silence(5.0, None)]}, kinds=("webrtc",)).verdict == "fail"

    def test_without_a_claim_or_a_call_nothing_is_decided(self) -> None:
        assert self.verdict(claimed=()).verdict == "unknown"
        assert self.verdict(kinds=("desktop",)).verdict == "unknown"
        assert call_recovery().check(synthetic.clean()).verdict == "unknown"

    def test_calls_that_were_not_up_decide_nothing(self) -> None:
        history = ops()[:1]
        evidence = synthetic.evidence_of([*synthetic.clean_ops(), *history])
        evidence = replace(evidence, calls=held_calls(history, {}), claimed_kinds=("ip_phone",))
        assert call_recovery().check(evidence).verdict == "unknown"

    def test_a_call_that_was_not_watched_to_the_end_decides_nothing(self) -> None:
        history = ops()[:-1]
        heard: Gaps = {("c1", "caller"): [], ("c1", "callee"): []}
        evidence = synthetic.evidence_of([*synthetic.clean_ops(), *history])
        evidence = replace(evidence, calls=held_calls(history, heard), claimed_kinds=("ip_phone",))
        assert call_recovery().check(evidence).verdict == "unknown"


# --- from what clients and media engines write -----------------------------------------------------------------------


def media_gap(begin: float, end: float, side: str) -> Op:
    value = {"call": "c1", "side": side, "from_ns": at(begin), "to_ns": at(end), "lost": 1, "ssrc_changed": False}
    return op(end, "media_gap", "ok", {**value, "gap_ms": (end - begin) * 1e3, "held": False}, process="media")


def media_leg(closed: float, side: str, last: float) -> Op:
    value = {"call": "c1", "side": side, "opened_ns": at(-3.0), "first_ns": at(-2.9), "last_ns": at(last)}
    return op(closed, "media_leg", "ok", value, process="media")


def heard(until: float) -> list[Op]:
    """What the engine tells each second while both directions carry audio."""
    row = [1, 1, 0, 20.0, 5.0, 0.0]
    value = {"legs": {"c1/caller": row, "c1/callee": row}, "pauses_ms": {}}
    return [op(t, "media_second", "ok", value, process="media") for t in range(round(until))]


def seen(*more: Op) -> HeldCall:
    found = sorted(ops(*more), key=lambda o: o.time_ns)
    (held,) = held_calls(found, calls_from_ops(found))
    return held


def of(held: HeldCall) -> Fate:
    return fate_of(held, fault_ns=at(FAULT_S), end_ns=at(END_S))


@pytest.mark.parametrize("closed_after_s", [0.02, 0.5])
def test_the_clients_help_counts_however_late_its_leg_is_closed(closed_after_s: float) -> None:
    """Our own BYE makes both ends silent: that is no audio that did not come back."""
    bye = 43.0
    held = seen(
        media_gap(5.0, 41.0, "caller"), media_gap(5.0, 41.1, "callee"),
        event(40.5, "caller", "reinvite_sent", code=200), event(bye, "caller", "bye_sent", code=200),
        media_leg(bye + closed_after_s, "caller", bye), media_leg(bye + closed_after_s, "callee", bye),
    )  # fmt: skip
    assert (of(held).helped_by, of(held).direction) == ("client", "none")


def test_audio_that_dies_just_before_the_end_and_stays_dead_is_not_back() -> None:
    held = seen(
        event(44.0, "caller", "bye_sent", code=200), media_leg(44.1, "caller", 44.0), media_leg(44.1, "callee", 39.2)
    )
    found = of(held)
    assert (found.band, found.direction) == ("never", "one-way")
    assert media_outage([found], [held], fault_ns=at(FAULT_S), end_ns=at(END_S)) is not None


def test_a_call_that_nobody_listened_to_until_the_end_is_not_judged() -> None:
    assert not seen(*heard(12)).listened_to
    assert seen(*heard(UNAIDED_S)).listened_to


def test_a_call_that_ended_before_the_fault_was_not_up() -> None:
    assert not seen(event(3.0, "callee", "bye_received")).was_up(at(FAULT_S))


def test_a_later_blip_is_not_the_silence_that_a_re_invite_ended() -> None:
    gaps = {"caller": [silence(5.0, 9.0), silence(30.0, 30.1)], "callee": [silence(5.0, 9.0)]}
    assert fate(event(20.0, "callee", "reinvite_received"), **gaps).helped_by == "nobody"


def test_the_media_clock_that_never_ended_is_down_for_sure_since_the_last_audio() -> None:
    held = seen(
        media_gap(5.0, 6.0, "caller"), media_gap(5.0, 6.0, "callee"),
        media_leg(END_S, "caller", 27.0), media_leg(END_S, "callee", 25.0),
    )  # fmt: skip
    found = media_outage([of(held)], [held], fault_ns=at(FAULT_S), end_ns=at(END_S))
    assert found is not None and found.end_ns is None
    assert found.duration.upper_s == pytest.approx(END_S - FAULT_S)
    assert found.duration.lower_s == pytest.approx(END_S - 27.0 - 0.02)
