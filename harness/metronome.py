"""A process that ticks every 10 ms and writes down, each second, how late it was: the noise floor of a run.

`python -m harness.metronome --out FILE`; ends on SIGTERM, and when its parent is gone. Each op (`f="metronome"`, type
ok) has `n`, `max_late_ms` and `psi_cpu_some_ratio`, the share of the second in which some process waited for a CPU
(/proc/pressure/cpu).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from harness.clock import NS_PER_S, now_ns
from harness.history import Op, Writer

TICK_NS = 10_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    writer = Writer(parser.parse_args().out)
    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    n = 0
    parent = os.getppid()
    while running and os.getppid() == parent:
        n += 1
        stalled_us = _cpu_stalled_us()
        began_ns = now_ns()
        late_ns = tick_for_a_second()
        stalled_after_us = _cpu_stalled_us()
        ratio = None
        if stalled_us is not None and stalled_after_us is not None:
            ratio = round((stalled_after_us - stalled_us) * 1000 / (now_ns() - began_ns), 4)
        value = {"n": n, "max_late_ms": round(late_ns / 1e6, 3), "psi_cpu_some_ratio": ratio}
        writer.write(Op(time_ns=now_ns(), process="metronome", f="metronome", type="ok", value=value))
    writer.close()


def tick_for_a_second(*, time_ns: Callable[[], int] = now_ns, sleep: Callable[[float], object] = time.sleep) -> int:
    """Tick for one second; how late the latest tick was, in ns."""
    latest = 0
    due = time_ns()
    end = due + NS_PER_S
    while due < end:
        due += TICK_NS
        sleep(max(0, due - time_ns()) / NS_PER_S)
        latest = max(latest, time_ns() - due)
    return latest


def _cpu_stalled_us() -> int | None:
    try:
        some = re.search(r"some .*total=(\d+)", Path("/proc/pressure/cpu").read_text())
    except OSError:
        return None
    return int(some.group(1)) if some else None


if __name__ == "__main__":
    main()
