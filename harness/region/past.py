"""What the books said before their records were changed, for Describe calls that lag.

The region's own tables remember their past themselves (state.py). Of routes and of security groups the books have the
only copy, and no past: whoever changes one lets it be kept here as it was. What was added since is not there yet for a
call that lags, what was changed is shown as it was, and what was deleted is gone at once, as everywhere in this region.
Which of them a filter lets through is judged by what is. Not kept over the death of the gateway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from copy import deepcopy
from threading import Lock
from xml.etree.ElementTree import Element

from harness.region.books import Books
from harness.region.calls import AwsError, Document
from harness.region.state import MEMORY_S

Items = Mapping[str, Element]
"""The items of an answer, by their ids."""


class Past:
    """The past of one set in the answers of one Describe action; safe to use from several threads."""

    def __init__(self, action: str, items: str, key: str, *, clock: Callable[[], float]) -> None:
        self._action, self._items, self._key = action, items, key
        self._clock = clock
        self._past: deque[tuple[float, Items]] = deque()
        self._lock = Lock()

    def keep(self, books: Books) -> None:
        """Before a change: this is how it was until now."""
        was = self._by_id(books.call(self._action, {}))
        with self._lock:
            now = self._clock()
            self._past.append((now, was))
            while self._past[0][0] < now - MEMORY_S:
                self._past.popleft()

    def show(self, document: Document, *, age_s: float, asked: Mapping[str, AwsError]) -> None:
        """Make an answer of now one of `age_s` seconds ago; the error in `asked` for an id that was not there yet."""
        if age_s <= 0:
            return
        with self._lock:
            wanted = self._clock() - age_s
            was = next((items for until, items in self._past if until > wanted), None)
        if was is None:
            return
        missing = [error for item_id, error in asked.items() if item_id not in was]
        if missing:
            raise missing[0]
        for parent in document.root.findall(self._items):
            for place, item in list(enumerate(parent))[::-1]:
                old = was.get(item.findtext(self._key) or "")
                parent.remove(item)
                if old is not None:
                    parent.insert(place, deepcopy(old))

    def _by_id(self, document: Document) -> Items:
        return {item.findtext(self._key) or "": item for item in document.items(self._items)}
