"""What a person sees while a run goes on: aligned lines, coloured on a terminal, plain when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.report.terminal import WIDTH

STYLES = {
    "FAULT": "bold red",
    "down": "red",
    "up": "green",
    "PASS": "bold green",
    "FAIL": "bold red",
    "UNKNOWN": "bold yellow",
    "fail": "red",
    "unknown": "yellow",
}


class Printer:
    """A `Say` for the command line. `quiet` sends everything to standard error, which leaves stdout to `--json`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(
            file=sys.stderr if quiet else sys.stdout, highlight=False, soft_wrap=True, markup=False, emoji=False
        )

    def __call__(self, at_s: float | None, kind: str, text: str) -> None:
        stamp = " " * WIDTH if at_s is None else f"{at_s:>+6.1f} s"
        self._line(stamp if at_s is not None else f"{kind:<{WIDTH}}", kind if at_s is not None else "", text, kind)

    def ending(self, lines: Sequence[str]) -> None:
        """The last lines of a run, as `harness.report.terminal` made them."""
        for line in lines:
            label, text = line[:WIDTH], line[WIDTH:]
            self._console.print(Text(label, style=STYLES.get(label.strip(), "")) + Text(text))

    def _line(self, stamp: str, label: str, text: str, kind: str) -> None:
        shown = Text(stamp) + Text(f" {label:<7}" if label else "", style=STYLES.get(kind, "")) + Text(f" {text}")
        self._console.print(shown)
