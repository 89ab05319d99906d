"""The reported outage is what the packets say: the clock against the capture of the same run.

After the scenarios, whose runs it looks into.
"""

from __future__ import annotations

import pytest

from fixtures.plugin import RunOnce
from scenarios.regression.active_node_crash import ACTIVE_NODE_CRASH
from tests.integration.capture import longest_outage_s, options, sent_twice

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TOLERANCE_S = 0.01
"""Between a packet's time in the kernel and the probe's: two hand-overs on a busy host."""


def test_the_options_clock_reports_the_outage_that_the_packets_show(run_once: RunOnce) -> None:
    outcome = run_once(ACTIVE_NODE_CRASH).outcome
    probe = next(probe for probe in ACTIVE_NODE_CRASH.probes if probe.clock == "options")
    exchanges = options(outcome.run_dir.path / "capture.pcap")
    reported = outcome.results["outages"]["options"]
    invoked = outcome.run_dir.history.read_text().count('"process":"options","f":"options","type":"invoke"')
    assert 0.97 * invoked <= len(exchanges) <= invoked  # the capture starts a moment after the probe
    assert sent_twice(outcome.run_dir.path / "capture.pcap") == []
    assert longest_outage_s(exchanges, deadline_s=probe.deadline_s) == pytest.approx(
        reported["upper_s"], abs=TOLERANCE_S
    )
