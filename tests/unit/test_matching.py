"""Filters: wildcards, what is joined with AND and what with OR."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from harness.region.calls import Document, one_of_each, take_filters
from harness.region.semantics.matching import all_pass, item_passes, matches

TWICE = {
    "Filter.1.Name": "state",
    "Filter.1.Value.1": "run*",
    "Filter.2.Name": "state",
    "Filter.2.Value.1": "*ing",
    "Filter.2.Value.2": "stopped",
    "Filter.3.Name": "tag:a",
    "Filter.3.Value.1": "b",
    "Filter.4.Name": "tag:a",
    "Filter.4.Value.1": "c",
    "MaxResults": "5",
}


@pytest.mark.parametrize(
    ("value", "pattern", "expected"),
    [
        ("running", "running", True),
        ("running", "run*", True),
        ("running", "*n?ng", True),
        ("running", "runn?", False),
        ("running", "Run*", False),
        ("running", "", False),
        ("", "*", True),
        ("", "?", False),
        ("a*b", r"a\*b", True),
        ("axb", r"a\*b", False),
        ("a?b", r"a\?b", True),
        ("axb", r"a\?b", False),
        ("*amazon?\\", r"\*amazon\?\\", True),
        ("[ab]", "[ab]", True),
        ("a", "[ab]", False),
        ("a[b", r"a\[b", True),
        ("a\nb", "a*b", True),
        ("a\\", "a\\", True),
    ],
)
def test_a_value_and_a_pattern(value: str, pattern: str, expected: bool) -> None:
    assert matches(value, pattern) is expected


def test_two_filters_of_one_name_are_both_asked() -> None:
    rest, taken = take_filters(TWICE, {"state"})
    assert taken == [("state", {"run*"}), ("state", {"*ing", "stopped"})]
    assert all_pass(taken, {"state": ["running"]})
    assert not all_pass(taken, {"state": ["stopped"]}) and not all_pass(taken, {"state": ["rune"]})
    assert [rest[f"Filter.{n}.Value.1"] for n in (1, 2)] == ["b", "c"] and rest["MaxResults"] == "5"


def test_books_are_asked_for_one_filter_of_a_name_at_a_time() -> None:
    first, second = one_of_each(take_filters(TWICE, {"state"})[0])
    assert (first["Filter.1.Value.1"], second["Filter.1.Value.1"]) == ("b", "c")
    assert first["MaxResults"] == second["MaxResults"] == "5"
    assert one_of_each({"VolumeId.1": "vol-1"}) == [{"VolumeId.1": "vol-1"}]


def test_what_is_in_both_answers_is_left() -> None:
    answers = [f"<A><set>{''.join(f'<item><id>{i}</id></item>' for i in ids)}</set></A>" for ids in ("abc", "bcd")]
    one, other = (Document(text.encode()) for text in answers)
    one.intersect(other)
    assert [item.findtext("id") for item in one.items("set")] == ["b", "c"]


def test_an_item_passes_by_any_of_its_values() -> None:
    item = ET.fromstring("<item><set><item><ip>10.0.0.1</ip></item><item><ip>10.0.0.2</ip></item></set></item>")
    places = {"ip": ("set/item/ip",)}
    assert item_passes(item, [("ip", frozenset({"10.0.0.1"})), ("ip", frozenset({"*.2"}))], places)
    assert not item_passes(item, [("ip", frozenset({"10.0.1.*"}))], places)
