"""The probe processes against a peer over real sockets: what they record, that they leak nothing, and how they end."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import history
from harness.clients.probes import new_calls, sip_options
from harness.clients.processes import ProbeProcess, start
from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.history import Op, Pair
from tests.integration import slots
from tests.integration.places import Place, loopback_place, start_pbx

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(120)]


@pytest.fixture
def place() -> Iterator[Place]:
    with loopback_place(slots.own("probes").cell) as (made, _):
        yield made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "history.d"


def ops_of(out: Path, clock: str) -> list[Op]:
    path = out / f"{clock}.jsonl"
    return list(history.read(path)) if path.exists() else []


def ended(out: Path, clock: str, count: int) -> bool:
    return sum(op.f == clock and op.type != "invoke" for op in ops_of(out, clock)) >= count


def pairs(out: Path, clock: str) -> list[Pair]:
    return history.pairs(ops_of(out, clock), clock)


def kinds(out: Path, clock: str) -> Counter[str]:
    return Counter(pair.end.type if pair.end else "open" for pair in pairs(out, clock))


def descriptors(probe: ProbeProcess) -> int:
    pid = probe._process.pid
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_both_clocks_are_ok_while_the_pbx_is_and_end_every_attempt(place: Place, out: Path) -> None:
    specs = (sip_options(), new_calls(period_s=0.1))
    probes = [start(spec, cell=place, netns_pid=place.client_pid, out_dir=out) for spec in specs]
    try:
        wait_for("30 calls", lambda: ended(out, "new_call", 30), timeout_s=20)
        for probe in probes:
            probe.check_alive()
        assert descriptors(probes[1]) < 30, "sockets of finished calls are given back"
    finally:
        for probe in probes:
            probe.stop(timeout_s=5)
    assert set(kinds(out, "options")) == {"ok"}
    assert set(kinds(out, "new_call")) == {"ok"}
    slips = sorted(float(pair.invoke.value["slip_ms"]) for pair in pairs(out, "options"))
    print(f"OPTIONS sends late: median {slips[len(slips) // 2]} ms, worst {slips[-1]} ms")
    registered = [op for op in ops_of(out, "new_call") if op.f == "registration"]
    assert [op.value["expires_s"] for op in registered] == [3600]


def test_a_dead_pbx_is_seen_and_one_that_forgot_the_registration_is_not_up(out: Path) -> None:
    with loopback_place(slots.own("probes-dead").cell) as (place, pbx):
        specs = (sip_options(), new_calls(period_s=0.1, deadline_s=0.4))
        probes = [start(spec, cell=place, netns_pid=place.client_pid, out_dir=out) for spec in specs]
        again: subprocess.Popen[bytes] | None = None
        try:
            wait_for("5 calls", lambda: ended(out, "new_call", 5), timeout_s=20)
            pbx.kill()
            pbx.wait(timeout=5)
            wait_for("not-ok calls", lambda: kinds(out, "new_call")["fail"] > 5, timeout_s=10)
            again = start_pbx(place.router_pid)
            told = "404 Not Found"
            wait_for("a 404", lambda: any(op.error == told for op in ops_of(out, "new_call")), timeout_s=10)
            wait_for("OPTIONS", lambda: ops_of(out, "options")[-1].type in ("invoke", "ok"), timeout_s=10)
        finally:
            for probe in probes:
                probe.stop(timeout_s=5)
            if again is not None:
                again.kill()
                again.wait(timeout=5)
    assert kinds(out, "options")["fail"] > 3, "a closed port answers with ICMP"
    assert kinds(out, "options")["open"] == kinds(out, "new_call")["open"] == 0


def test_a_registration_that_fails_ends_the_probe_with_one_clear_line(place: Place, out: Path) -> None:
    wrong = replace(place, profile=SimpleNamespace(**{**vars(place.profile), "extensions": _wrong_password(place)}))
    probe = start(new_calls(), cell=wrong, netns_pid=place.client_pid, out_dir=out)

    def dead() -> str | None:
        try:
            probe.check_alive()
        except InfrastructureError as error:
            return str(error)
        return None

    told = wait_for("the probe to give up", dead, timeout_s=15)
    assert "1999@pbx.test could not register at 127.0.0.2:5060 in 5 attempts: 401" in told
    assert "hush" not in told


def _wrong_password(place: Place) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(place.profile.extensions), "password": "hush"})
