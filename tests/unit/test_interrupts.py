"""The first signal stops the run where it stands; clean-up is never interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from harness.errors import Interrupted
from harness.interrupts import interrupts


@pytest.fixture(autouse=True)
def _as_from_a_terminal() -> Iterator[None]:
    """A shell that runs the tests in the background has SIGINT ignored, and so have they."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_raises_and_later_ones_only_talk(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with interrupts() as gate:
        with pytest.raises(Interrupted, match=f"stopped by {number.name}"):
            signal.raise_signal(number)
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert gate.seen == "SIGTERM"
    assert capfd.readouterr().err.count("already cleaning up") == 2


def test_a_closed_gate_lets_nothing_interrupt(capfd: pytest.CaptureFixture[str]) -> None:
    with interrupts() as gate:
        gate.close()
        signal.raise_signal(signal.SIGINT)
        assert gate.seen == "SIGINT"
    assert "already cleaning up" in capfd.readouterr().err


def test_the_old_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts() as gate:
            signal.raise_signal(signal.SIGHUP)
        assert gate.seen is None
    finally:
        signal.signal(signal.SIGHUP, before)
