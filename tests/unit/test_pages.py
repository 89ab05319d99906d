"""Pages of what the region has filtered: every item once, and the tokens that can't be."""

from __future__ import annotations

import pytest

from harness.region import pages
from harness.region.calls import AwsError, Call, Document


def document(count: int, *, token: str = "") -> Document:
    items = "".join(f"<item><volumeId>v{n}</volumeId></item>" for n in range(count))
    told = f"<nextToken>{token}</nextToken>" if token else ""
    return Document(f"<DescribeVolumesResponse><volumeSet>{items}</volumeSet>{told}</DescribeVolumesResponse>".encode())


def call(**params: str) -> Call:
    return Call(service="ec2", action="DescribeVolumes", params=params, access_key_id="", source="", request_id="r")


def ids(page: Document) -> list[str | None]:
    return [item.findtext("volumeId") for item in page.items("volumeSet")]


def test_pages_hold_every_item_once() -> None:
    found, params = [], {"MaxResults": "5"}
    while True:
        page = document(12)
        pages.cut(page, "volumeSet", call(**params))
        found.append(len(ids(page)))
        token = page.root.findtext("nextToken")
        if not token:
            break
        params["NextToken"] = token
    assert found == [5, 5, 2]


def test_without_being_asked_nothing_is_cut() -> None:
    page = document(12)
    pages.cut(page, "volumeSet", call())
    assert len(ids(page)) == 12
    assert page.root.findtext("nextToken") is None


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"MaxResults": "4"}, "InvalidParameterValue"),
        ({"MaxResults": "many"}, "InvalidParameterValue"),
        ({"NextToken": "%%%"}, "InvalidNextToken"),
        ({"NextToken": "aW5zdGFuY2VzOjU="}, "InvalidNextToken"),
    ],
)
def test_what_can_not_be_a_page(params: dict[str, str], code: str) -> None:
    with pytest.raises(AwsError) as caught:
        pages.cut(document(1), "volumeSet", call(**params))
    assert caught.value.code == code


def test_the_next_page_of_the_books_is_appended() -> None:
    whole = document(2, token="t")
    whole.append(document(3))
    assert ids(whole) == ["v0", "v1", "v0", "v1", "v2"]
    assert whole.root.findtext("nextToken") is None
