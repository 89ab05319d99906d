"""Which pair of test networks a test may use: several pytest processes run side by side, each has two of its own."""

from __future__ import annotations

import os
from typing import Final

from harness.topology import Topology

WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Which of the processes of pytest-xdist this is; 0 where there is only one."""

FIRST: Final = 2 * WORKER
SECOND: Final = FIRST + 1


def own(cell: str, slot: int = FIRST) -> Topology:
    """A cell of this process: its name is unlike that of any other process, its networks are its own, too."""
    return Topology(cell=f"{cell}-{WORKER}", slot=slot)
