"""docs/faults.md is what the faults say of themselves, and each says all of it."""

from __future__ import annotations

import pytest

from harness import catalogue
from harness.faults import page


def test_the_page_is_up_to_date() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run `python -m harness.faults.page`"


@pytest.mark.parametrize("name", [name for name, _, _ in catalogue.fault_factories()])
def test_every_fault_says_how_it_is_seen_and_healed_and_where_it_runs(name: str) -> None:
    made = next(made for known, made, _ in catalogue.fault_factories() if known == name)
    for what in ("observable", "healed_by", "on_ec2"):
        assert getattr(made, what, ""), f"{made.__name__}.{what}"


def test_clients_that_are_no_clocks_are_listed_too() -> None:
    names = [row["name"] for row in catalogue.listing()["probes"]]
    assert {"sip_options", "held_calls", "registered", "in_flight", "background_calls"} <= set(names)
