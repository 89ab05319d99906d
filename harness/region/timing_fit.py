"""A timing profile from the samples of a real account: CSV in, TOML out. What was not sampled stays as `aws` has it.

The CSV has a header `operation,seconds` and a row per sample, with the operations of `timing.OPERATIONS`. How to take
samples from an account, and what counts as the end of each operation, is in docs/timing.md.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import catalogue
from harness.errors import UsageError
from harness.region.timing import ASSUMED, NAME, OPERATIONS, Delay, Timing, read_timing

HEADER = ["operation", "seconds"]
LONGEST_S = 600.0


def show_or_fit(file: str, *, name: str, source: str, out: Path | None) -> list[str]:
    """The table of a profile, or of the one fitted from a CSV of samples, which goes to `out` if that is given."""
    if not file.endswith(".csv"):
        return table(read_timing(catalogue.timing_path(file)))
    if not source:
        raise UsageError("--source: say where and when the samples were taken: it is printed beside every figure")
    assumed = read_timing(catalogue.timing_path("aws"))
    fitted = fit(read_samples(Path(file)), name=name, source=source, base=assumed)
    if out is None:
        return table(fitted)
    try:
        out.write_text(as_toml(fitted), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out}: can't write there: {error.strerror}") from error
    return [*table(fitted), f"written to {out}: use it with --timing {out}"]


def read_samples(path: Path) -> dict[str, list[float]]:
    """Seconds by operation; `UsageError` names the first line that is wrong."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if next(rows, None) != HEADER:
                raise UsageError(f"{path}: line 1 is not the header {','.join(HEADER)}")
            for row in filter(None, rows):
                operation, seconds = _sample(row, where=f"{path}: line {rows.line_num}")
                found[operation].append(seconds)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a CSV file: {error}") from error
    if not found:
        raise UsageError(f"{path}: no samples")
    return dict(found)


def fit(samples_s: Mapping[str, Sequence[float]], *, name: str, source: str, base: Timing) -> Timing:
    """`base` with what was sampled in place of its own: drawn from the samples themselves, assumed with fewer than 30.

    Operations without samples keep the delay of `base`: none of them would be kinder than AWS.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(f"--name {name}: a profile's name is at most 32 of a-z, 0-9, '.' and '-'")
    delays = dict(base.delay)
    for operation, samples in samples_s.items():
        ordered = tuple(sorted(round(sample, 4) for sample in samples))
        delays[operation] = Delay(source=f"{source}, n={len(ordered)}", max_s=ordered[-1], samples_s=ordered)
    return Timing(name=name, summary=f"{source}; the rest as {base.name} has it", delay=delays)


def as_toml(timing: Timing) -> str:
    """The profile as the file that `--timing` takes."""
    parts = [f'name = "{timing.name}"\nsummary = {_quoted(timing.summary)}\n']
    for operation in OPERATIONS:
        delay = timing.delay.get(operation)
        if delay is None:
            continue
        parts.append(
            f"[delay.{operation}]  # {OPERATIONS[operation]}\n"
            f"source = {_quoted(delay.source)}\nmax_s = {delay.max_s:g}\n{_figures(delay)}\n"
        )
    return "\n".join(parts)


def table(timing: Timing) -> list[str]:
    """What a profile says, a line per operation: median and 95th percentile in seconds, and where they come from."""
    lines = [f"{timing.label}: a limit is raised by {timing.allowance_s:.1f} s under it"]
    for operation, meaning in OPERATIONS.items():
        delay = timing.delay.get(operation)
        figures = "as long as it takes here" if delay is None else f"{delay.median:7.2f} {delay.p95:7.2f}"
        told = ASSUMED if delay is None and timing.delay else "" if delay is None else delay.told
        lines.append(f"{operation:<14} {figures:<25} {told:<12} {meaning}".rstrip())
    return lines


def _figures(delay: Delay) -> str:
    if delay.samples_s:
        return f"samples_s = [{', '.join(f'{sample:g}' for sample in delay.samples_s)}]"
    p95 = "" if delay.p95_s is None else f"\np95_s = {delay.p95_s:g}"
    return f"median_s = {delay.median_s:g}{p95}"


def _sample(row: list[str], *, where: str) -> tuple[str, float]:
    if len(row) != len(HEADER):
        raise UsageError(f"{where}: {len(row)} columns, not {len(HEADER)}")
    operation, text = row[0].strip(), row[1].strip()
    if operation not in OPERATIONS:
        raise UsageError(f"{where}: unknown operation {operation!r}; there are: {', '.join(OPERATIONS)}")
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(f"{where}: {text!r} is not a number of seconds") from None
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_S:
        raise UsageError(f"{where}: {text} is not between 0 and {LONGEST_S:g} s")
    return operation, seconds


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(character if character.isprintable() else " " for character in escaped) + '"'
