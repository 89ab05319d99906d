"""Pages of answers that are put together here: the books can't page what the region filters.

AWS ("Pagination", API reference of each action): a page has at most MaxResults items, and NextToken leads to the next.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from harness.region.calls import AwsError, Call, Document, Tree, answer, number, put

LEAST, MOST = 5, 1000
PAGING = ("MaxResults", "NextToken")


def unpaged(params: Mapping[str, str]) -> dict[str, str]:
    """The parameters for the books, which are to tell everything."""
    return {key: value for key, value in params.items() if key not in PAGING}


def cut(document: Document, items: str, call: Call) -> None:
    """Leave the page that the call asks for of the set `items`, with the token of the next one."""
    wanted, token = call.get("MaxResults"), call.get("NextToken")
    if wanted is None and token is None:
        return
    size = _size(wanted)
    begin = _begin(token, items)
    holder = document.root.find(items)
    rows = holder.findall("item") if holder is not None else []
    for row in [*rows[:begin], *rows[begin + size :]]:
        assert holder is not None
        holder.remove(row)
    more = begin + size < len(rows)
    put(document.root, "nextToken", _token(begin + size, items) if more else None)


def answered(call: Call, items: str, rows: Sequence[Tree]) -> bytes:
    """The page that the call asks for of an answer that is the set `items` only."""
    document = Document(answer(call, {items: rows}))
    cut(document, items, call)
    return document.body(call)


def _size(wanted: str | None) -> int:
    if wanted is None:
        return MOST
    size = number(wanted)
    if size is None or size < LEAST:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ( {wanted[:64]} ) for parameter maxResults is invalid. Expecting a value of at least {LEAST}.",
        )
    return min(size, MOST)


def _token(begin: int, items: str) -> str:
    return base64.urlsafe_b64encode(f"{items}:{begin}".encode()).decode()


def _begin(token: str | None, items: str) -> int:
    if token is None:
        return 0
    try:
        name, _, begin = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(":")
        found = number(begin)
        if name == items and found is not None and found >= 0:
            return found
    except ValueError:  # characters that base64 or UTF-8 has not
        pass
    raise AwsError("InvalidNextToken", "The specified token is not valid.")
