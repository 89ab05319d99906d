"""summary.md: one run on half a page, for a pull-request comment. Pure: results.json in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.report import sip
from harness.report.terminal import (
    CALL_COLUMNS,
    CLOCK_WORDS,
    call_row,
    clock_words,
    data_lines,
    headline,
    noise_lines,
    registration_lines,
)


def markdown(results: Mapping[str, Any], *, run_dir: Path) -> str:
    """The whole page, the verdict first."""
    parts = [
        f"# {results['scenario']}: {str(results['verdict']).upper()}\n",
        headline(results) + "\n",
        f"Policy `{results['policy']}`, started {results['started_at']}, run `{run_dir.name}`.\n",
    ]
    if results.get("error"):
        parts.append(f"Stopped before its end: {results['error']}\n")
    if str(results["system"]).endswith("@local/instant"):
        parts.append("Emulated region with instant timing: these seconds are no evidence about AWS.\n")
    parts += [
        _phases(results),
        _clocks(results),
        _calls(results),
        _told("clients", registration_lines(results)),
        _in_flight(results),
        _sip(results),
        _told("data", data_lines(results)),
        _told("noise", noise_lines(results)),
        _checks(results),
        _faults(results),
    ]
    if results.get("not_run"):
        parts.append("Not run: " + ", ".join(results["not_run"]) + ".\n")
    if results.get("deviations"):
        parts.append("Otherwise than on EC2: " + "; ".join(results["deviations"]) + ".\n")
    return "\n".join(part for part in parts if part)


def _phases(results: Mapping[str, Any]) -> str:
    if not results.get("phases"):
        return ""
    names = [name for name, seconds in results["phases"].items() if seconds or name == "unexplained"]
    return table(["phase", *names], [["seconds", *(f"{results['phases'][name]:.2f}" for name in names)]])


def _clocks(results: Mapping[str, Any]) -> str:
    rows = []
    for name, family in (results.get("outages") or {}).items():
        if family is None:
            rows.append([CLOCK_WORDS.get(name, name), "not run", ""])
            continue
        for transport, row in (family.get("transports") or {None: family}).items():
            words = clock_words(name, transport)
            if not row["outages"]:
                rows.append([words, "no outage", ""])
            else:
                bounds = f"{row['lower_s']:.3f}–{row['upper_s']:.3f} s" + ("" if row["ended"] else ", never ended")
                rows.append([words, bounds, f"{row['outages']}, flapping {row['flapping']}"])
    return table(["clock", "outage", "count"], rows) if rows else ""


def _calls(results: Mapping[str, Any]) -> str:
    calls = results.get("calls")
    return table(list(CALL_COLUMNS), [list(call_row(row)) for row in calls["by_kind"]]) if calls else ""


def _in_flight(results: Mapping[str, Any]) -> str:
    """Transactions that the failover caught, by kind."""
    found = results.get("in_flight")
    head = ["caught", "when", "client", "completed", "refused", "unanswered", "unfinished", "orphans", "longest"]
    rows = [
        [
            row["kind"], row["when"], f"{row['client']} ({row['transport']})",
            *(str(row[name]) for name in ("completed", "refused", "unanswered", "unfinished")),
            str(sum(row["orphans"].values())), "" if row["longest_s"] is None else f"{row['longest_s']:.1f} s",
        ]
        for row in (found["by_kind"] if found else ())
    ]  # fmt: skip
    return table(head, rows) if rows else ""


def _sip(results: Mapping[str, Any]) -> str:
    rows = sip.rows(results)
    return table(list(sip.COLUMNS), rows) + "\nDelays are median/95th percentile.\n" if rows else ""


def _told(label: str, lines: list[str]) -> str:
    """What the terminal says under this label: the first line, the others as a list."""
    paragraphs = [f"**{label}** {lines[0]}\n", "".join(f"* {text}\n" for text in lines[1:])] if lines else []
    return "\n".join(text for text in paragraphs if text)


def _checks(results: Mapping[str, Any]) -> str:
    rows = [[c["name"], c["verdict"], str(c["why"]).replace("|", "\\|")] for c in results.get("checks", ())]
    return table(["check", "verdict", "why"], rows) if rows else ""


def _faults(results: Mapping[str, Any]) -> str:
    rows = [
        [f["name"], str(f["target"]), _seconds(f["landed_at_s"]), _seconds(f["healed_at_s"]), str(f["observed_by"])]
        for f in results.get("faults", ())
    ]
    return table(["fault", "target", "landed", "healed", "seen by"], rows) if rows else ""


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"+{value:.2f} s"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"
