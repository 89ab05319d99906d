"""The lines a person reads at the end of a run. Pure: results.json in, lines out; nothing here changes a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.report import sip

CLOCK_WORDS = {
    "options": "OPTIONS answered",
    "register": "REGISTER accepted",
    "new_call": "new call with audio",
    "media": "media of held calls",
}
WIDTH = 8


def ending(results: Mapping[str, Any], *, run_dir: Path, command: str) -> list[str]:
    """Verdict, outage, phases, what each check says where it matters, what was not run, and what to do next."""
    lines = [line(str(results["verdict"]).upper(), headline(results))]
    if results.get("error"):
        lines.append(line("stopped", str(results["error"])))
    if results.get("phases"):
        lines.append(line("phases", phases(results)))
    lines += [line("clock", text) for text in clock_lines(results)]
    lines += [line("" if n else "calls", text) for n, text in enumerate(call_lines(results))]
    lines += [line("" if n else "clients", text) for n, text in enumerate(registration_lines(results))]
    lines += [line("" if n else "caught", text) for n, text in enumerate(in_flight_lines(results))]
    lines += [line("" if n else "sip", text) for n, text in enumerate(sip.lines(results))]
    lines += [line("data", text) for text in data_lines(results)]
    lines += [line("noise", text) for text in noise_lines(results)]
    owner = _check(results, "single_owner")
    if owner:
        lines.append(line("owner", str(owner["why"])))
    lines += broken(results, run_dir)
    if results.get("not_run"):
        lines.append(line("not run", ", ".join(results["not_run"])))
    lines.append(line("report", f"{run_dir}/summary.md"))
    lines.append(line("next", command))
    return lines


def line(label: str, text: str) -> str:
    """`label   text`, in the columns of design.md."""
    return f"{label:<{WIDTH}} {text}"


def headline(results: Mapping[str, Any]) -> str:
    """One sentence: how long the outage was, by which clock, against which limit, and how much this is worth."""
    worth = f"n=1, seed {results['seed']}, {results['system']}"
    outage = results.get("outage")
    if outage is None:
        measured = any(row is not None for row in (results.get("outages") or {}).values())
        return f"no outage seen; {worth}" if measured else f"nothing was measured; {worth}"
    limit = f"limit {outage['limit_s']:g}; " if outage["limit_s"] is not None else ""
    clock = clock_words(outage["clock"], outage.get("transport"))
    if not outage["ended"]:
        return f"outage never ended, watched for {outage['upper_s']:.1f} s ({limit}clock: {clock})   {worth}"
    return f"outage {outage['lower_s']:.2f}–{outage['upper_s']:.2f} s ({limit}clock: {clock})   {worth}"


def phases(results: Mapping[str, Any]) -> str:
    """`detect 1.1  decide 1.6 …  unexplained 0.1`: seconds on the critical path, phases of length 0 left out."""
    rows = results["phases"]
    shown = [f"{name} {seconds:.1f}" for name, seconds in rows.items() if seconds >= 0.05 and name != "unexplained"]
    return "  ".join([*shown, f"unexplained {rows['unexplained']:.1f}"])


def clock_lines(results: Mapping[str, Any]) -> list[str]:
    """Every clock that was measured, on each transport, with both bounds."""
    rows = []
    for name, row in (results.get("outages") or {}).items():
        transports = (row or {}).get("transports") or {"udp": row}
        rows += [f"{clock_words(name, t)}: {_clock_text(one)}" for t, one in transports.items() if one is not None]
    return rows


def clock_words(clock: str, transport: str | None) -> str:
    """`new_call` on TLS is "new call with audio (TLS)"; UDP is not said."""
    words = CLOCK_WORDS.get(clock, clock)
    return words if transport in (None, "udp") else f"{words} ({str(transport).upper()})"


def _clock_text(row: Mapping[str, Any]) -> str:
    text = f"{row['lower_s']:.2f}–{row['upper_s']:.2f} s" if row["outages"] else "no outage"
    if not row["ended"]:
        text = f"at least {row['lower_s']:.2f} s, watched for {row['upper_s']:.2f} s"
    notes = [f"{row[key]} {key}" for key in ("flapping", "late") if row[key]]
    if not row["ended"]:
        notes.append("never came back")
    elif row.get("came_back", 0) < row.get("of", 0):
        notes.append(f"{row['came_back']} of {row['of']} calls came back")
    return text + (f" ({', '.join(notes)})" if notes else "")


def call_lines(results: Mapping[str, Any]) -> list[str]:
    """`20: 17 recovered · 2 by client · 1 lost (webrtc)`, then a table: kind, transport, fates, gap."""
    calls = results.get("calls")
    if not calls:
        return []
    by_client = sum(row["by_client"] for row in calls["by_kind"])
    lost = calls["by_fate"]["never"] - by_client
    kinds = [f"{row['kind']} {n}" for row in calls["by_kind"] if (n := row["never"] - row["by_client"])]
    parts = [f"{n} {band}" for band, n in calls["by_fate"].items() if n and band != "never"]
    parts += [f"{by_client} by client"] if by_client else []
    parts += [f"{lost} lost ({', '.join(kinds)})"] if lost else []
    parts += [f"{calls['not_up']} not up before the fault"] if calls["not_up"] else []
    rows = [CALL_COLUMNS, *(call_row(row) for row in calls["by_kind"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(CALL_COLUMNS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"{calls['total']}: {' · '.join(parts)}", *table]


def registration_lines(results: Mapping[str, Any]) -> list[str]:
    """`200: 60 lost their way, back 50% 8.1 s, 100% 12.4 s …`, then a line per kind."""
    found = results.get("registrations")
    if not found:
        return []
    accepted, handshakes = found["peak_accepted_per_s"], found["peak_completed_handshakes_per_s"]
    storm = f"peak {accepted} accepted/s, {handshakes} TLS handshakes completed/s"
    rows = [f"{row['kind']} ({row['transport']}) {_registration_text(row)}" for row in found["by_kind"]]
    return [f"{_registration_text(found)}; {storm}", *(rows if len(rows) > 1 else [])]


def _registration_text(row: Mapping[str, Any]) -> str:
    unaware = f"; {row['unaware']} do not know yet that their connection is dead" if row.get("unaware") else ""
    if not row["lost"]:
        return f"{row['total']}: none noticed anything{unaware}"
    back = ", ".join(f"{share} {'never' if s is None else f'{s:.1f} s'}" for share, s in row["back_s"].items())
    refused = f", {row['refused']} refusals" if row["refused"] else ""
    return f"{row['total']}: {row['lost']} lost their way, back after {back}{refused}{unaware}"


def in_flight_lines(results: Mapping[str, Any]) -> list[str]:
    """`24 transactions: 20 completed, 2 refused …`, then a line per kind, client and moment."""
    found = results.get("in_flight")
    if not found:
        return []
    rows = [f"{r['kind']} {r['when']}, {r['client']} ({r['transport']}) {_caught_text(r)}" for r in found["by_kind"]]
    return [_caught_text(found), *rows, *_afterwards_text(found["afterwards"])]


def _afterwards_text(row: Mapping[str, Any]) -> list[str]:
    """`afterwards 15 of 16 standing calls could be re-INVITEd and ended; not hold (desktop): …`."""
    if not row["asked"]:
        return []
    dead = f"; not {'; '.join(row['dead'])}" if row["dead"] else ""
    alive = row["asked"] - len(row["dead"])
    return [f"afterwards {alive} of {row['asked']} standing calls could be re-INVITEd and ended{dead}"]


def _caught_text(row: Mapping[str, Any]) -> str:
    parts = [f"{row[name]} {name}" for name in ("completed", "refused", "unanswered", "unfinished") if row[name]]
    codes = f" (codes {', '.join(f'{n}x {code}' for code, n in row['codes'].items())})" if row["codes"] else ""
    longest = f", at most {row['longest_s']:.1f} s" if row["longest_s"] is not None else ""
    byes = "; then BYE " + ", ".join(f"{n}x {code}" for code, n in row["byes"].items()) if row["byes"] else ""
    orphans = "".join(f"; {n} orphans: the called end {what}" for what, n in row["orphans"].items())
    left = f", {row['orphans_left']} of them to the end of the run" if row["orphans_left"] else ""
    return f"{row['total']}: {', '.join(parts) or 'none'}{codes}{longest}{byes}{orphans}{left}"


def data_lines(results: Mapping[str, Any]) -> list[str]:
    """`1,204 acknowledged, 0 lost (registration 200, …)`; what was not found is told apart: lost, or unknown."""
    found = results.get("data")
    if not found:
        return []
    total, there, lost, unknown = (
        sum(row[key] for row in found.values()) for key in ("acknowledged", "found", "lost", "unknown")
    )
    if there == total:
        kinds = ", ".join(f"{kind} {row['acknowledged']}" for kind, row in found.items())
        return [f"{total:,} acknowledged, 0 lost ({kinds})"]
    missing = [f"{kind} {row[key]} {key}" for kind, row in found.items() for key in ("lost", "unknown") if row[key]]
    return [f"{total:,} acknowledged, {there:,} found, {lost:,} lost, {unknown:,} unknown ({', '.join(missing)})"]


def noise_lines(results: Mapping[str, Any]) -> list[str]:
    """`media gap p99.9 24 ms (n=100); sends late p99 0.2 ms`: what is not the system's doing."""
    floor = results.get("noise") or {}
    media, sends = floor.get("media_gap_ms"), [row for row in (floor.get("send_late_ms") or {}).values() if row]
    parts = [f"media gap p99.9 {media['p99.9']:.0f} ms (n={media['n']})"] if media else []
    parts += [f"sends late p99 {max(row['p99'] for row in sends):.1f} ms"] if sends else []
    return [f"without a fault: {'; '.join(parts)}"] if parts else []


CALL_COLUMNS = ("kind", "transport", "calls", "fate", "gap min/median/max", "dialog")


def call_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One kind of client on one transport, in the columns of `CALL_COLUMNS`."""
    fate = ", ".join(
        f"{row[band]} {band}" for band in ("seamless", "recovered", "degraded", "late", "never") if row[band]
    )
    extra = [("one_way", "one-way"), ("decayed", "decayed"), ("by_pbx", "by the PBX"), ("by_client", "by client")]
    notes = ", ".join(f"{row[key]} {words}" for key, words in extra if row[key])
    gap = row["gap_s"]
    return (
        row["kind"],
        row["transport"],
        str(row["total"]),
        f"{fate} ({notes})" if notes else fate,
        f"{gap['min']:.2f}/{gap['median']:.2f}/{gap['max']:.2f} s" if gap else "never back",
        ", ".join(f"{n} {end}" for end, n in row["dialog"].items()),
    )


def broken(results: Mapping[str, Any], run_dir: Path) -> list[str]:
    """The checks that did not pass, failures first, and the evidence that decides the first of them."""
    order = {"fail": 0, "unknown": 1}
    rows = sorted((c for c in results.get("checks", ()) if c["verdict"] in order), key=lambda c: order[c["verdict"]])
    lines = [line(str(check["verdict"]), f"{check['name']}: {check['why']}") for check in rows]
    if rows and rows[0]["evidence"]:
        number = rows[0]["evidence"][0]
        row = _history_line(run_dir / "history.jsonl", number)
        if row:
            lines.insert(1, line("", f"op {number}: {row[:200]}"))
    return lines


def _history_line(path: Path, number: int) -> str | None:
    try:
        with path.open(encoding="utf-8") as lines:
            return next((row.strip() for i, row in enumerate(lines) if i == number), None)
    except OSError:
        return None


def _check(results: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((check for check in results.get("checks", ()) if check["name"] == name), None)


def tally(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per scenario and policy: how many runs passed, the median of the headline outages and their spread."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for document in documents:
        groups.setdefault(f"{document['scenario']} under {document['policy']}", []).append(document)
    return [line("runs", f"{what}: {_tally(group)}") for what, group in groups.items()]


def _tally(documents: Sequence[Mapping[str, Any]]) -> str:
    verdicts = [document["verdict"] for document in documents]
    seen = [d["outage"] for d in documents if d.get("outage")]
    outages = sorted(outage["upper_s"] for outage in seen if outage["ended"])
    text = f"{verdicts.count('pass')} of {len(verdicts)} passed"
    if verdicts.count("pass") == len(verdicts):
        text += f" (true pass rate ≥ {_lower_bound(len(verdicts)):.0%} at 95 %)"
    if outages:
        text += f"; outage upper bound: median {median(outages):.2f} s, {outages[0]:.2f}–{outages[-1]:.2f} s"
    if len(outages) < len(seen):
        text += f"; {len(seen) - len(outages)} never ended"
    return text


def _lower_bound(n: int) -> float:
    """Exact one-sided 95 % bound of the pass rate after n passes out of n (Clopper-Pearson: 0.05 to the power 1/n)."""
    return float(0.05 ** (1 / n))
