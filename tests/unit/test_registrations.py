"""The storm after a failover, from planted events."""

from __future__ import annotations

from typing import Any

from harness.history import Op
from harness.registrations import figures
from harness.report.terminal import registration_lines
from tests.unit.synthetic import at, op


def event(seconds: float, client: str, name: str, *, kind: str = "desktop", **value: Any) -> Op:
    transport = {"desktop": "tls", "ip_phone": "udp"}[kind]
    return op(seconds, "client", "ok", {"client": client, "kind": kind, "transport": transport, "event": name, **value})


def of(*ops: Op) -> Any:
    return figures(sorted(ops, key=lambda o: o.time_ns), fault_ns=at(5.0))


def test_the_shares_count_from_the_fault_and_over_those_that_were_lost() -> None:
    ops = [event(0.0, f"c{n}", "registered") for n in range(12)]
    ops += [event(8.0, f"c{n}", "flow_down") for n in range(10)]
    ops += [event(9.0 + n, f"c{n}", "registered") for n in range(10)]
    found = of(*ops)
    assert (found["total"], found["lost"], found["not_back"]) == (12, 10, 0)
    assert found["back_s"] == {"50%": 8.0, "90%": 12.0, "99%": 13.0, "100%": 13.0}


def test_a_share_that_was_never_reached_is_null() -> None:
    ops = [event(0.0, "a", "registered"), event(0.0, "b", "registered")]
    found = of(*ops, event(6, "a", "flow_down"), event(6, "b", "flow_down"), event(7, "a", "registered"))
    assert found["not_back"] == 1
    assert found["back_s"] == {"50%": 2.0, "90%": None, "99%": None, "100%": None}


def test_a_client_that_falls_again_is_back_only_for_the_last_time() -> None:
    found = of(
        event(0, "a", "registered"), event(6, "a", "flow_down"), event(7, "a", "registered"),
        event(8, "a", "flow_down"), event(11, "a", "registered"),
    )  # fmt: skip
    assert found["back_s"]["100%"] == 6.0


def test_refusals_peaks_and_kinds() -> None:
    ops = [event(0, "a", "registered"), event(0, "p", "registered", kind="ip_phone")]
    ops += [event(6, "a", "flow_down"), event(7, "a", "flow_up"), event(7.1, "a", "register_failed", code=503)]
    ops += [event(7.2, "a", "register_failed", code=None), event(7.9, "a", "flow_up"), event(7.95, "a", "registered")]
    found = of(*ops)
    assert (found["refused"], found["peak_completed_handshakes_per_s"], found["peak_accepted_per_s"]) == (1, 2, 1)
    assert [(r["kind"], r["lost"], r["back_s"]) for r in found["by_kind"]][1] == ("ip_phone", 0, None)


def test_the_peak_is_of_what_was_accepted_and_says_so() -> None:
    ops = [event(0, f"c{n}", "registered") for n in range(3)]
    ops += [event(6.5 + n / 100, "c0", "register_failed", code=503) for n in range(20)]
    ops += [event(t, f"c{n}", "registered") for n, t in enumerate((7.1, 7.2, 8.5))]
    found = of(*ops)
    assert (found["refused"], found["peak_accepted_per_s"]) == (20, 2)
    assert registration_lines({"registrations": found})[0].endswith("; peak 2 accepted/s, 0 TLS handshakes completed/s")


def owner(seconds: float, name: str) -> Op:
    return op(seconds, "ownership", "ok", {"address": name, "mounted": [name], "pbx": [name]})


def test_a_silent_client_on_a_stream_is_unaware_where_the_address_moved_and_only_there() -> None:
    clients = [event(0, "a", "registered"), event(0, "b", "registered"), event(0, "p", "registered", kind="ip_phone")]
    clients += [event(7, "a", "flow_down"), event(8, "a", "registered")]
    stayed, moved = [owner(0, "pbx-1"), owner(8, "pbx-1")], [owner(0, "pbx-1"), owner(8, "pbx-2")]
    assert of(*clients, *stayed)["unaware"] == 0
    assert of(*clients, *moved)["unaware"] == 1
    assert registration_lines({"registrations": of(*clients, *moved)})[0].startswith(
        "3: 1 lost their way, back after 50% 3.0 s, 90% 3.0 s, 99% 3.0 s, 100% 3.0 s; 1 do not know yet that"
    )


def test_a_refresh_before_the_address_moved_is_no_sign_of_life_and_coming_home_is_no_staying() -> None:
    client = [event(0, "a", "registered"), event(5.5, "a", "registered")]
    assert of(*client, owner(0, "pbx-1"), owner(9, "pbx-2"))["unaware"] == 1
    assert of(*client, owner(0, "pbx-1"), owner(9, "pbx-2"), owner(20, "pbx-1"))["unaware"] == 1
    assert of(*client, event(9.5, "a", "registered"), owner(0, "pbx-1"), owner(9, "pbx-2"))["unaware"] == 0


def test_who_was_not_registered_before_the_fault_does_not_count() -> None:
    assert of(event(6, "late", "registered")) is None
    assert of(event(0, "a", "registered"), event(1, "a", "flow_down"), event(6, "a", "registered")) is None
