"""RFC 4475: what it calls valid is read, what it calls invalid is refused, and nothing else is ever raised."""

from __future__ import annotations

import pytest

from harness.clients.sip.message import BadMessage, BadRequest, parse, response
from tests.torture import Torture, load

ALL = load()
BY_NAME = {torture.name: torture for torture in ALL}
OURS = ("416", "420", "415", "406")
"""Well-formed, refused by who serves it: tests/unit/test_sip_serving.py."""


@pytest.mark.parametrize("torture", ALL, ids=lambda torture: torture.name)
def test_every_message_gets_its_verdict(torture: Torture) -> None:
    if torture.verdict in ("valid", *OURS):
        message = parse(torture.data)
        assert message.call_id
        assert message.cseq[1]
        return
    with pytest.raises(BadMessage) as caught:
        parse(torture.data)
    if torture.verdict == "dropped":
        assert not isinstance(caught.value, BadRequest)
    else:
        assert isinstance(caught.value, BadRequest)
        assert str(caught.value.code) == torture.verdict
        answer = response(caught.value.request, caught.value.code, str(caught.value), to_tag="t")
        assert answer.startswith(f"SIP/2.0 {torture.verdict} ".encode())


def test_the_short_tortuous_invite() -> None:
    message = parse(BY_NAME["wsinv"].data)
    assert message.uri == "sip:vivekg@chair-dnrc.example.com;unknownparam"
    assert (message.from_tag, message.to_tag, message.cseq) == ("98asjd8", "1918181833n", (9, "INVITE"))
    assert message.branch == "390skdjuw"
    assert len(message.all("via")) == 3
    assert message.get("subject") == ""
    assert message.get("unknownheaderwithunusualvalue") == ";;,,;;,;"
    assert len(message.body) == 150


def test_a_wide_range_of_characters() -> None:
    message = parse(BY_NAME["intmeth"].data)
    assert message.method == message.cseq[1] == "!interesting-Method0123456789_*+`.%indeed'~"
    assert message.from_tag == "_token~1'+`*%!-."
    assert message.call_id == "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"


def test_escapes_are_not_unescaped() -> None:
    assert parse(BY_NAME["esc02"].data).method == "RE%47IST%45R"
    assert len(parse(BY_NAME["esc02"].data).all("contact")) == 2
    assert "%00" in parse(BY_NAME["escnull"].data).all("contact")[0]


def test_what_a_datagram_has_behind_the_message_is_no_message() -> None:
    message = parse(BY_NAME["dblreq"].data)
    assert (message.method, message.body) == ("REGISTER", b"")


def test_answers_of_an_unusual_kind() -> None:
    assert parse(BY_NAME["unreason"].data).reason.startswith("= 2**3 * 5**2 но сто")
    assert parse(BY_NAME["noreason"].data).reason == ""


def test_a_body_is_bytes() -> None:
    assert b"\r\n\r\n\xff\x00" in parse(BY_NAME["mpart01"].data).body
