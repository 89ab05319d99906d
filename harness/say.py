"""What a person sees while a run goes on: aligned lines, coloured on a terminal, plain when piped.

Nobody has to look: a reader that is gone (`| head`, a closed terminal) or a full disk behind `>` ends the telling, and
neither the run nor its clean-up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

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


class _Console(Console):
    """Rich's own answer to a broken pipe is to exit with 1, which here means that a check failed."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Printer:
    """A `Say` for the command line. `quiet` sends everything to standard error, which leaves stdout to `--json`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._stream = sys.stderr if quiet else sys.stdout
        self._console = _Console(file=self._stream, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def __call__(self, at_s: float | None, kind: str, text: str) -> None:
        stamp = " " * WIDTH if at_s is None else f"{at_s:>+6.1f} s"
        self._line(stamp if at_s is not None else f"{kind:<{WIDTH}}", kind if at_s is not None else "", text, kind)

    def ending(self, lines: Sequence[str]) -> None:
        """The last lines of a run, as `harness.report.terminal` made them."""
        for line in lines:
            label, text = line[:WIDTH], line[WIDTH:]
            self._print(Text(label, style=STYLES.get(label.strip(), "")) + Text(text))

    def _line(self, stamp: str, label: str, text: str, kind: str) -> None:
        shown = Text(stamp) + Text(f" {label:<7}" if label else "", style=STYLES.get(kind, "")) + Text(f" {text}")
        self._print(shown)

    def _print(self, text: Text) -> None:
        try:
            self._console.print(text)
        except OSError:
            self._console.quiet = True
            with suppress(OSError, ValueError):  # what is still buffered would fail again at the exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
