"""Where `pbx-chaos` starts: Ctrl-C is one line from the very first moment, also while the harness is still loading."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from harness.cli import invoke

        sys.exit(invoke(sys.argv[1:]))
    except KeyboardInterrupt:
        print("pbx-chaos: interrupted before anything was started", file=sys.stderr)
        sys.exit(2)
