"""What a scenario can ask for, and how a probe is started."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from harness.clients.extensions import of_load
from harness.clients.probes import background_calls, new_calls, prompt_heard, sip_options

CELL: Any = SimpleNamespace(
    public_ip="203.0.113.1",
    topology=SimpleNamespace(cell="t"),
    profile=SimpleNamespace(
        sip=SimpleNamespace(domain="pbx.test", udp_port=5060, tls_port=5061),
        extensions=SimpleNamespace(first=1000, last=1999, password="hush"),
    ),
)


def test_specs_are_plain_data() -> None:
    assert asdict(sip_options()) == {"clock": "options", "period_s": 0.05, "deadline_s": 0.5, "transport": "udp"}
    assert asdict(new_calls(period_s=1)) == {"clock": "new_call", "period_s": 1, "deadline_s": 1.0, "transport": "udp"}


def test_a_transport_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no transport 'sctp'; there are udp, tcp, tls, wss"):
        sip_options(transport="sctp")  # type: ignore[arg-type]


def test_a_transport_that_the_pbx_does_not_offer_is_not_run() -> None:
    only_tls: Any = SimpleNamespace(name="p", sip=SimpleNamespace(udp_port=None, tcp_port=None, tls_port=5061))
    assert sip_options(transport="tls").unmet(only_tls) is None
    assert sip_options(transport="tcp").unmet(only_tls) == "PBX p offers no tcp"
    assert new_calls(transport="tls").unmet(only_tls) == "PBX p offers no udp"  # the called phone's


def test_a_caller_on_tls_calls_a_phone_on_udp() -> None:
    argv = new_calls(transport="tls").arguments(CELL)
    assert argv[argv.index("--to") + 1] == "203.0.113.1:5061"
    assert argv[argv.index("--callee-to") + 1] == "203.0.113.1:5060"
    assert argv[argv.index("--process") + 1] == new_calls(transport="tls").name


@pytest.mark.parametrize(
    "wrong", [{"period_s": 0}, {"period_s": 0.001}, {"deadline_s": 0}, {"deadline_s": 33}, {"period_s": -1}]
)
def test_what_cant_be_measured_is_refused_where_it_is_written(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="_s is"):
        sip_options(**wrong)


def test_calls_use_the_two_last_extensions() -> None:
    argv = new_calls().arguments(CELL)
    assert argv[argv.index("--caller") + 1 :][:3] == ["1998", "--callee", "1999"]


def test_the_password_is_in_no_argument() -> None:
    assert not any("hush" in argument for argument in new_calls().arguments(CELL) + sip_options().arguments(CELL))


def test_background_calls_have_extensions_of_their_own_and_a_rate_that_is_one() -> None:
    argv = background_calls(rate_cps=2.5, hold_s=10).arguments(CELL)
    assert argv[:2] == ["-m", "harness.clients.load"]
    callers, callee = of_load(CELL.profile.extensions)
    assert argv[argv.index("--callers") + 1] == f"{callers[0]}-{callers[-1]}"
    assert argv[argv.index("--callee") + 1] == str(callee)
    assert argv[argv.index("--rate-cps") + 1] == "2.5"
    assert "--audio" not in argv
    assert background_calls(rate_cps=1, audio=True).arguments(CELL)[-1] == "--audio"
    wrongs: list[dict[str, float]] = [{"rate_cps": 0}, {"rate_cps": 5001}, {"rate_cps": 1, "hold_s": 0}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="background calls"):
            background_calls(**wrong)


def test_a_prompt_is_listened_to_where_the_profile_says_what_it_plays() -> None:
    def profile(**prompts: Any) -> Any:
        return SimpleNamespace(
            name="p",
            sip=CELL.profile.sip,
            extensions=CELL.profile.extensions,
            data=SimpleNamespace(prompts=SimpleNamespace(**prompts) if prompts else None),
        )

    spec = prompt_heard()
    assert spec.unmet(profile()) == "PBX p declares no prompt extension"
    assert spec.unmet(profile(extension=None, tones_hz=())) == "PBX p declares no prompt extension"
    assert "by which tones" in str(spec.unmet(profile(extension=900, tones_hz=())))
    whole = profile(extension=900, tones_hz=(392, 523))
    assert spec.unmet(whole) is None
    argv = spec.arguments(SimpleNamespace(public_ip="203.0.113.1", topology=CELL.topology, profile=whole))
    assert argv[argv.index("--extension") :] == ["--extension", "900", "--tone-hz", "392", "523", "--process", "prompt"]
