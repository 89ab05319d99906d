"""The REGISTER clock: challenged within its attempt, once, and its nonce used again until it is refused."""

from __future__ import annotations

import re

import pytest

from harness.clients.register import Register, Registrar
from harness.clients.single_shot import Here
from harness.clients.sip.digest import Credentials
from harness.clients.sip.message import Message, parse, response

HERE = Here(transport="udp", address=("198.18.0.9", 5070), branch="z9hG4bK-1")


@pytest.fixture
def registrar() -> Registrar:
    return Registrar(domain="pbx.test", credentials=Credentials(user="1997", password="hush"))


def asked(registrar: Registrar) -> Message:
    return parse(Register(registrar).request(HERE))


def challenge(message: Message, nonce: str, code: int = 401) -> Message:
    header = ("WWW-Authenticate", f'Digest realm="pbx.test", nonce="{nonce}", qop="auth"')
    return parse(response(message, code, "Unauthorized", to_tag="t", headers=[header]))


def test_the_first_attempt_brings_no_credentials_and_a_challenge_is_answered_within_it(registrar: Registrar) -> None:
    attempt = Register(registrar)
    first = parse(attempt.request(HERE))
    assert first.get("authorization") is None
    assert attempt.again(challenge(first, "n1"))
    again = parse(attempt.request(HERE))
    assert 'nonce="n1"' in (again.get("authorization") or "")
    assert (first.call_id, first.cseq[0] + 1) == (again.call_id, again.cseq[0])


def test_a_nonce_is_used_again_and_counted(registrar: Registrar) -> None:
    Register(registrar).again(challenge(asked(registrar), "n1"))
    counts = [re.search(r"nc=(\w+)", asked(registrar).get("authorization") or "") for _ in range(2)]
    assert [found and found[1] for found in counts] == ["00000001", "00000002"]


def test_a_new_nonce_replaces_the_old(registrar: Registrar) -> None:
    for nonce in ("n1", "n2"):
        Register(registrar).again(challenge(asked(registrar), nonce))
    assert 'nonce="n2"' in (asked(registrar).get("authorization") or "")


@pytest.mark.parametrize("code", [200, 403, 404, 503])
def test_no_other_answer_is_asked_about_again(registrar: Registrar, code: int) -> None:
    assert not Register(registrar).again(challenge(asked(registrar), "n1", code=code))


def test_who_was_registered_where_is_told(registrar: Registrar) -> None:
    attempt = Register(registrar)
    message = parse(attempt.request(HERE))
    contact = ("Contact", "<sip:1997@198.18.0.9:5070>;expires=600")
    ok = parse(response(message, 200, "OK", to_tag="t", headers=[contact]))
    assert attempt.told(ok) == {"user": "1997", "expires_s": 600, "contact": "sip:1997@198.18.0.9:5070"}


def test_a_challenge_that_can_not_be_met_is_the_answer(registrar: Registrar) -> None:
    header = ("WWW-Authenticate", 'Digest realm="pbx.test", nonce="n", algorithm=SHA-3')
    reply = parse(response(asked(registrar), 401, "Unauthorized", to_tag="t", headers=[header]))
    assert not Register(registrar).again(reply)


def test_the_password_is_in_nothing_that_is_sent_or_shown(registrar: Registrar) -> None:
    attempt = Register(registrar)
    attempt.again(challenge(parse(attempt.request(HERE)), "n1"))
    assert b"hush" not in attempt.request(HERE)
    assert "hush" not in repr(registrar.credentials)
