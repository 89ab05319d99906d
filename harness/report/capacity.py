"""A capacity run for a person: the plan, a line per level, half a page of Markdown. Pure: a document in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.capacity import MIN_RAMPS
from harness.report.summary import table
from harness.report.terminal import line

COLUMNS = ("ramp", "load", "SER", "SRD p95", "media loss", "longest pause", "outage", "calls back", "host", "verdict")


def planned(*, ramps: Sequence[str], during: Sequence[str], n: int) -> str:
    """What is going to be done, in a few words."""
    return f"{n} ramps each of {', '.join(ramps)}, in {' and in '.join(label(one) for one in during)}"


def minutes(seconds: float) -> str:
    """`3 minutes`; rounded up."""
    whole = math.ceil(seconds / 60)
    return f"{whole} minute{'s' if whole > 1 else ''}"


def label(during: str) -> str:
    """The state of the system as a word."""
    return "failover" if during == "failover" else "normal"


def level_line(ramp: str, n: int, row: Mapping[str, Any]) -> str:
    """One level while it goes on: load, what was measured of it, the host, and what broke."""
    measured = [
        f"SER {ratio(row['ser_ratio'])}",
        f"SRD p95 {seconds(row['srd_p95_s'])}",
        f"loss {ratio(row['media_loss_ratio'], digits=2)}",
        f"outage {outage(row['outage_s'])}",
        f"host {host(row)}",
    ]
    shown = "  ".join(words for words in measured if not words.endswith("not measured"))
    return f"{ramp} {row['load']:g} (ramp {n}): {shown}   {verdict(row)}"


def ending(document: Mapping[str, Any], *, run_dir: str) -> list[str]:
    """The last lines: each knee, how much it is worth, and where the evidence is."""
    lines = [line("stopped", document["stopped"])] if document["stopped"] else []
    lines += [line("" if n else "knee", knee_line(figure)) for n, figure in enumerate(document["figures"])]
    if not document["figures"]:
        lines.append(line("knee", "nothing was measured"))
    lines.append(line("system", f"{document['system']}, policy {document['policy']}"))
    lines.append(line("report", f"{run_dir}/summary.md"))
    return lines


def knee_line(figure: Mapping[str, Any]) -> str:
    """One figure with its spread, its n and whose limit it was; `no figure` where there are too few ramps."""
    what = f"{figure['unit']}, {label(figure['during'])}"
    by = ", ".join(f"{who} {count}x" for who, count in figure["limited_by"].items()) or "no ramp ended"
    worth = f"n={figure['n']}, limited by {by}"
    if figure["knee"] is None:
        why = f"n < {MIN_RAMPS}" if figure["n"] < MIN_RAMPS else "the lowest level did not hold in every ramp"
        seen = f"; seen {span(figure)}" if figure["min"] is not None else ""
        return f"{what}: no figure: {why}{seen}   {worth}"
    sign = "≥ " if figure["at_least"] else ""
    own = "" if figure["limited_by"].get("host") is None else "host limit: "
    return f"{what}: {own}knee {sign}{figure['knee']:g} ({span(figure)})   {worth}"


def markdown(document: Mapping[str, Any]) -> str:
    """summary.md."""
    parts = [
        "# Capacity\n",
        f"{document['system']}, policy `{document['policy']}`, started {document['started_at']}.\n",
        f"Limits: {', '.join(f'{name} {value:g}' for name, value in document['limits'].items())}; "
        f"each level measured for {document['measure_s']:g} s.\n",
    ]
    if document["stopped"]:
        parts.append(f"Stopped before its end: {document['stopped']}\n")
    if str(document["system"]).startswith("stand-in@local"):
        parts.append(
            "PBX, phones and cluster share this host: a host limit says nothing about the PBX, and none of it about "
            "another product or about AWS.\n"
        )
    for figure in document["figures"]:
        parts.append(f"## {figure['unit']}, {label(figure['during'])}\n")
        parts.append(f"{knee_line(figure)}\n")
        parts.append(table(list(COLUMNS), [cells(row) for row in figure["levels"]]))
        parts += [f"* ramp {n}: {why}" for n, why in enumerate(figure["why"], 1)] + [""]
    return "\n".join(parts)


def cells(row: Mapping[str, Any]) -> list[str]:
    """A level as a row of the table."""
    return [
        str(row["n"]),
        f"{row['load']:g}",
        f"{ratio(row['ser_ratio'])} of {row['attempts'] or 0}",
        seconds(row["srd_p95_s"]),
        ratio(row["media_loss_ratio"], digits=2),
        seconds(row["media_gap_s"]),
        outage(row["outage_s"]),
        ratio(row["recovered_ratio"]),
        host(row),
        verdict(row).replace("|", "\\|"),
    ]


def span(figure: Mapping[str, Any]) -> str:
    return f"{figure['min']:g}–{figure['max']:g}" if figure["min"] != figure["max"] else f"{figure['min']:g}"


def ratio(value: float | None, *, digits: int = 1) -> str:
    return "not measured" if value is None else f"{value:.{digits}%}"


def seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f} s"


def outage(value: float | str | None) -> str:
    return "not measured" if value is None else value if isinstance(value, str) else f"{value:.2f} s"


def host(row: Mapping[str, Any]) -> str:
    """How busy the host was."""
    parts = [] if row["cpu_ratio"] is None else [f"CPU {row['cpu_ratio']:.0%}"]
    parts += [] if row["psi_ratio"] is None else [f"PSI {row['psi_ratio']:.0%}"]
    parts += [] if row["tick_late_ms"] is None else [f"ticks ≤ {row['tick_late_ms']:.0f} ms late"]
    return ", ".join(parts) or "not measured"


def verdict(row: Mapping[str, Any]) -> str:
    """What a level came to, in words."""
    if row["host"] is not None:
        return f"HOST: {row['host']}"
    return f"BROKEN: {', '.join(row['broken'])}" if row["broken"] else "held"
