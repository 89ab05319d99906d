"""Filters of Describe calls: which values they let through.

AWS: "Filter" (API reference): several filters are joined with AND, the values of one with OR; nothing is said of two
with the same name, which are then two like any others. "List and filter using the CLI and API" (User Guide): `*` stands
for any characters, `?` for one, a backslash takes the meaning from the character after it. Values are case-sensitive.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from xml.etree.ElementTree import Element

Filters = Sequence[tuple[str, frozenset[str]]]
"""The filters of a call, in its order: the name of each, and its values."""

Places = Mapping[str, Sequence[str]]
"""Filters that are judged by what an answer says: the paths in one of its items where a filter's values stand."""

_TOKEN = re.compile(r"\\(?P<escaped>.)|(?P<other>.)", re.DOTALL)


def matches(value: str, pattern: str) -> bool:
    """Whether the whole value is what a filter's value says."""
    return fnmatchcase(value, glob(pattern))


def passes(values: Iterable[str], patterns: Collection[str]) -> bool:
    """Whether one of the values is one of those wanted."""
    return any(matches(value, pattern) for value in values for pattern in patterns)


def all_pass(filters: Filters, values: Mapping[str, Iterable[str]]) -> bool:
    """Whether every filter lets through what has these values, by the filters' names."""
    return all(passes(values[name], patterns) for name, patterns in filters)


def item_passes(item: Element, filters: Filters, places: Places) -> bool:
    """Whether every filter lets this item of an answer through."""
    return all(
        passes([element.text or "" for place in places[name] for element in item.findall(place)], patterns)
        for name, patterns in filters
    )


@lru_cache(maxsize=1024)
def glob(pattern: str) -> str:
    """The same in the language of `fnmatch`, which has no backslash but brackets."""
    return "".join(_part(found["escaped"], found["other"]) for found in _TOKEN.finditer(pattern))


def _part(escaped: str | None, other: str | None) -> str:
    if escaped is not None:
        return f"[{escaped}]" if escaped in "*?[" else escaped
    return "[[]" if other == "[" else other or ""
