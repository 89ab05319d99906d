"""What a person reads: the verdict first, both bounds, what they are worth, the first broken check and its evidence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.catalogue import always_on
from harness.checkers.outage import outage
from harness.judge import judge
from harness.report import summary, terminal
from harness.say import Printer
from tests.unit import synthetic


@pytest.fixture
def results() -> dict[str, Any]:
    return judge(synthetic.clean(), [outage(limit_s=60), *always_on()], meta=synthetic.meta())


def ending(results: dict[str, Any], run_dir: Path = Path("reports/runs/x/y")) -> str:
    return "\n".join(terminal.ending(results, run_dir=run_dir, command="pbx-chaos run x --seed 7"))


def test_the_first_line_is_the_verdict_with_both_bounds_the_limit_and_the_fidelity(results: dict[str, Any]) -> None:
    first = ending(results).splitlines()[0]
    row = results["outage"]
    assert first.startswith("PASS")
    assert f"{row['lower_s']:.2f}–{row['upper_s']:.2f} s" in first
    assert "limit 60" in first
    assert results["system"] in first


def test_what_was_not_measured_is_said_and_the_last_line_reproduces(results: dict[str, Any]) -> None:
    lines = ending(results).splitlines()
    assert any(line.startswith("not run") and "the REGISTER clock" in line for line in lines)
    assert lines[-1] == "next     pbx-chaos run x --seed 7"


def test_phases_of_no_length_are_left_out_but_never_what_is_unexplained() -> None:
    assert (
        terminal.phases({"phases": {"detect": 1.23, "stop": 0.0, "unexplained": 0.0}}) == "detect 1.2  unexplained 0.0"
    )


def test_an_outage_that_never_ended_is_not_given_an_end(results: dict[str, Any]) -> None:
    never = {**results, "outage": {**results["outage"], "ended": False}}
    assert "never ended, watched for" in terminal.headline(never)


@pytest.mark.parametrize(
    ("outages", "words"),
    [({"options": {}}, "no outage seen"), ({"options": None}, "nothing was measured"), ({}, "nothing was measured")],
)
def test_no_outage_and_no_measurement_are_different_things(
    results: dict[str, Any], outages: dict[str, Any], words: str
) -> None:
    assert terminal.headline({**results, "outage": None, "outages": outages}).startswith(words)


def test_a_failure_comes_before_an_unknown_with_the_op_that_decides_it(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"index":0}\n{"index":1,"f":"ownership"}\n')
    checks = [
        {"name": "a", "verdict": "unknown", "why": "nobody looked", "evidence": ()},
        {"name": "b", "verdict": "fail", "why": "two owners", "evidence": (1,)},
        {"name": "c", "verdict": "pass", "why": "fine", "evidence": ()},
    ]
    lines = terminal.broken({"checks": checks}, tmp_path)
    assert lines[0] == "fail     b: two owners"
    assert '"ownership"' in lines[1]
    assert lines[2] == "unknown  a: nobody looked"
    assert len(lines) == 3


def test_runs_are_counted_with_the_bound_that_their_number_allows(results: dict[str, Any]) -> None:
    text = "\n".join(terminal.tally([results] * 10))
    assert "10 of 10 passed (true pass rate ≥ 74% at 95 %)" in text
    never = {**results, "outage": {**results["outage"], "upper_s": 99.0, "ended": False}}
    assert terminal.tally([results, never])[0].endswith("; 1 never ended")
    assert "99" not in terminal.tally([results, never])[0]
    mixed = terminal.tally([results, {**results, "verdict": "fail"}])[0]
    assert "1 of 2 passed;" in mixed


def test_policies_are_never_pooled(results: dict[str, Any]) -> None:
    assert len(terminal.tally([results, {**results, "policy": "other"}])) == 2


def test_the_summary_says_what_its_seconds_are_worth(results: dict[str, Any]) -> None:
    text = summary.markdown({**results, "system": "stand-in@local/instant"}, run_dir=Path("x/y"))
    assert text.startswith(f"# {results['scenario']}: PASS")
    assert "no evidence about AWS" in text
    assert "| unexplained |" in text or "unexplained" in text
    for check in results["checks"]:
        assert f"| {check['name']} | {check['verdict']} |" in text


DATA = {
    "registration": {"acknowledged": 200, "found": 200, "lost": 0, "unknown": 0},
    "call_record": {"acknowledged": 1500, "found": 1400, "lost": 0, "unknown": 100},
}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, []),
        ({"registration": DATA["registration"]}, ["200 acknowledged, 0 lost (registration 200)"]),
        (DATA, ["1,700 acknowledged, 1,600 found, 0 lost, 100 unknown (call_record 100 unknown)"]),
        (
            {"call_record": {"acknowledged": 9, "found": 4, "lost": 2, "unknown": 3}},
            ["9 acknowledged, 4 found, 2 lost, 3 unknown (call_record 2 lost, call_record 3 unknown)"],
        ),
    ],
)
def test_what_was_not_found_of_the_data_is_never_passed_over(data: Any, words: list[str]) -> None:
    assert terminal.data_lines({"data": data}) == words


def sip_span(**found: Any) -> dict[str, Any]:
    ratios = dict.fromkeys(("ira_ratio", "ser_ratio", "seer_ratio", "isa_ratio", "scr_ratio"))
    delays = dict.fromkeys(("rrd_s", "srd_s", "srd_failed_s", "sdd_s", "sdt_s"))
    return {"registrations": 0, "sessions": 0, "host_failures": 0, **ratios, **delays, **found}


def test_the_figures_of_rfc_6076_are_told_span_by_span(results: dict[str, Any]) -> None:
    delay = {"p50": 0.0042, "p95": 0.0125, "n": 30}
    sip = {
        "before": sip_span(registrations=30, rrd_s=delay, ira_ratio=0.0, sessions=12, ser_ratio=0.9167, srd_s=delay),
        "during": sip_span(sessions=5, host_failures=2, ser_ratio=0.0, isa_ratio=1.0, scr_ratio=0.0),
        "after": sip_span(),
    }
    lines = [line for line in ending({**results, "sip": sip}).splitlines() if "SER" in line]
    assert lines == [
        "sip      before: 30 REGISTERs, IRA 0.0%, RRD 4.2/12 ms; 12 calls, SER 91.7%, ISA –, SCR –, SRD 4.2/12 ms",
        "         during: 5 (+2 not sent) calls, SER 0.0%, ISA 100.0%, SCR 0.0%, SRD –",
    ]
    text = summary.markdown({**results, "sip": sip}, run_dir=Path("x/y"))
    assert "| before | 30 | 0.0% | 4.2/12 ms | 12 | 91.7% | – | – | – | 4.2/12 ms | – | – | – |" in text
    assert "| after | 0 | – | – | 0 | – | – | – | – | – | – | – | – |" in text


def test_the_summary_has_registered_clients_data_and_noise_floor(results: dict[str, Any]) -> None:
    row = {"total": 9, "lost": 0, "unaware": 0, "refused": 0, "kind": "mobile", "transport": "tls"}
    clients = {**row, "peak_accepted_per_s": 3, "peak_completed_handshakes_per_s": 2, "by_kind": [row, row]}
    text = summary.markdown({**results, "registrations": clients, "data": DATA}, run_dir=Path("x/y"))
    assert "**clients** 9: none noticed anything; peak 3 accepted/s" in text
    assert "\n\n* mobile (tls) 9: none noticed anything\n* mobile (tls) 9: none noticed anything\n\n" in text
    assert "**data** 1,700 acknowledged, 1,600 found" in text
    assert "**noise** without a fault: sends late p99 0.0 ms\n" in text


def test_a_piped_printer_writes_plain_aligned_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say = Printer()
    say(None, "cell", "3 nodes")
    say(5.14, "FAULT", "power off")
    say.ending(["PASS     outage"])
    assert capsys.readouterr().out == "cell     3 nodes\n  +5.1 s FAULT   power off\nPASS     outage\n"


def test_with_json_nothing_but_the_document_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    say = Printer(quiet=True)
    say(None, "cell", "3 nodes")
    said = capsys.readouterr()
    assert said.out == ""
    assert "3 nodes" in said.err


def test_square_brackets_are_text_not_markup() -> None:
    say = Printer()
    say._console = Console(file=io.StringIO(), markup=False, highlight=False)
    say(None, "cell", "[red]x[/red]")
    assert "[red]x[/red]" in say._console.file.getvalue()  # type: ignore[attr-defined]
