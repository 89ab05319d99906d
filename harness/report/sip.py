"""The figures of RFC 6076 for a person: a row per span, a line per span. Pure: results.json in, text out.

Delays are shown as median and 95th percentile in ms; "–" where nothing stands behind a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    *("RFC 6076", "REGISTERs", "IRA", "RRD", "calls", "SER", "SEER", "ISA", "SCR"),
    *("SRD", "SRD failed", "SDD", "SDT"),
)


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Before the fault, during the outage and after it, in the columns of `COLUMNS`; nothing where nobody asked."""
    return [
        [
            span,
            str(found["registrations"]),
            ratio(found["ira_ratio"]),
            delay(found["rrd_s"]),
            _calls(found),
            *(ratio(found[f"{name}_ratio"]) for name in ("ser", "seer", "isa", "scr")),
            *(delay(found[f"{name}_s"]) for name in ("srd", "srd_failed", "sdd", "sdt")),
        ]
        for span, found in (results.get("sip") or {}).items()
    ]


def lines(results: Mapping[str, Any]) -> list[str]:
    """`before: 50 REGISTERs, IRA 0.0 %, RRD 1.2/2.0 ms; 25 calls, SER 100.0 %, …`, a line per span with attempts."""
    told = []
    for span, found in (results.get("sip") or {}).items():
        parts = []
        if found["registrations"]:
            asked = f"{found['registrations']} REGISTERs"
            parts.append(f"{asked}, IRA {ratio(found['ira_ratio'])}, RRD {delay(found['rrd_s'])}")
        if found["sessions"] or found["host_failures"]:
            shares = [f"{name.upper()} {ratio(found[f'{name}_ratio'])}" for name in ("ser", "isa", "scr")]
            parts.append(f"{_calls(found)} calls, {', '.join(shares)}, SRD {delay(found['srd_s'])}")
        told += [f"{span}: {'; '.join(parts)}"] if parts else []
    return told


def ratio(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{value:.1%}"


def delay(found: Mapping[str, float] | None) -> str:
    """`8.0/12 ms`: median and 95th percentile."""
    return "–" if found is None else f"{_ms(found['p50'])}/{_ms(found['p95'])} ms"


def _calls(found: Mapping[str, Any]) -> str:
    """How many were sent, and how many this host had no port for."""
    return f"{found['sessions']}" + (f" (+{found['host_failures']} not sent)" if found["host_failures"] else "")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds < 0.01 else f"{seconds * 1e3:.0f}"
