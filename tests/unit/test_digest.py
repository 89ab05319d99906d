"""Digest authentication, against the examples of its RFCs."""

from __future__ import annotations

import pytest

from harness.clients.sip.authority import Authority
from harness.clients.sip.digest import BadChallenge, Credentials, answer, challenge_of, challenges_of
from harness.clients.sip.message import Message, parse

MUFASA = Credentials(user="Mufasa", password="Circle of Life")
NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


def demand(*challenges: str, code: int = 401) -> Message:
    name = "WWW-Authenticate" if code == 401 else "Proxy-Authenticate"
    asked = "".join(f"{name}: {challenge}\r\n" for challenge in challenges)
    head = f"SIP/2.0 {code} Prove it\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:a>\r\n"
    return parse(f"{head}Call-ID: 1\r\nCSeq: 1 REGISTER\r\n{asked}\r\n".encode())


@pytest.mark.parametrize(
    ("algorithm", "proof"),
    [
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
    ],
)
def test_rfc_7616_example(algorithm: str, proof: str) -> None:
    asked = demand(
        f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="{NONCE}"'
    )
    name, value = answer(challenge_of(asked), MUFASA, method="GET", uri="/dir/index.html", cnonce=CNONCE)
    assert name == "Authorization"
    assert f'response="{proof}"' in value
    assert "nc=00000001" in value


def test_without_qop_as_rfc_2069() -> None:
    asked = demand('Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"', code=407)
    mufasa = Credentials(user="Mufasa", password="CircleOfLife")
    name, value = answer(challenge_of(asked), mufasa, method="GET", uri="/dir/index.html")
    assert name == "Proxy-Authorization"
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in value
    assert "qop" not in value


def test_the_first_challenge_that_is_known_is_taken() -> None:
    asked = demand(
        'Basic realm="x"',
        'Digest realm="x", nonce="1", algorithm=SHA-512-256',
        'Digest realm="y", nonce="2", stale=TRUE',
    )
    challenge = challenge_of(asked)
    assert (challenge.realm, challenge.algorithm, challenge.stale) == ("y", "MD5", True)


@pytest.mark.parametrize(
    "value", ['Basic realm="x"', 'Digest realm="x"', 'Digest nonce="1", realm="x", qop="auth-int"']
)
def test_what_cant_be_answered_says_so(value: str) -> None:
    with pytest.raises(BadChallenge):
        challenge_of(demand(value))


def test_quotes_in_a_name_stay_quoted() -> None:
    asked = challenge_of(demand('Digest realm="a\\"b", nonce="1", opaque="o"'))
    value = answer(asked, Credentials(user='x"y', password="p"), method="REGISTER", uri="sip:a")[1]
    assert 'username="x\\"y"' in value
    assert 'realm="a\\"b"' in value
    assert 'opaque="o"' in value


def test_a_password_is_in_no_representation() -> None:
    assert "Circle" not in repr(MUFASA)


def test_both_demands_of_one_answer_are_met() -> None:
    asked = demand('Digest realm="a", nonce="1"')
    both = Message(
        headers=(
            *asked.headers,
            ("proxy-authenticate", 'Digest realm="b", nonce="2", algorithm=SHA-256'),
            ("proxy-authenticate", 'Digest realm="b", nonce="3"'),
        ),
        code=401,
    )
    assert [(c.header, c.realm, c.nonce) for c in challenges_of(both)] == [
        ("Authorization", "a", "1"),
        ("Proxy-Authorization", "b", "2"),
    ]
    attempt = Authority(MUFASA).attempt()
    assert attempt.challenged(both)
    assert [name for name, _ in attempt.headers(method="INVITE", uri="sip:x")] == [
        "Authorization",
        "Proxy-Authorization",
    ]


def test_a_nonce_is_used_again_and_counted() -> None:
    authority = Authority(MUFASA)
    assert authority.attempt().challenged(demand('Digest realm="a", nonce="1", qop="auth"'))
    counts = [authority.attempt().headers(method="REGISTER", uri="sip:x")[0][1] for _ in range(3)]
    assert [f"nc=0000000{n}" in value for n, value in enumerate(counts, 1)] == [True] * 3
    assert authority.attempt().challenged(demand('Digest realm="a", nonce="2", qop="auth"'))
    (_, value), *_ = authority.attempt().headers(method="REGISTER", uri="sip:x")
    assert 'nonce="2"' in value
    assert "nc=00000001" in value


def test_what_was_refused_is_not_sent_again() -> None:
    attempt = Authority(MUFASA).attempt()
    assert attempt.challenged(demand('Digest realm="a", nonce="1"'))
    assert not attempt.challenged(demand('Digest realm="a", nonce="2"'))


def test_a_stale_nonce_is_replaced_once() -> None:
    attempt = Authority(MUFASA).attempt()
    assert attempt.challenged(demand('Digest realm="a", nonce="1"'))
    assert attempt.challenged(demand('Digest realm="a", nonce="2", stale=true'))
    assert not attempt.challenged(demand('Digest realm="a", nonce="3", stale=true'))


def test_a_nonce_of_another_node_is_replaced() -> None:
    authority = Authority(MUFASA)
    assert authority.attempt().challenged(demand('Digest realm="a", nonce="node-1"'))
    assert authority.attempt().challenged(demand('Digest realm="a", nonce="node-2"'))


def test_no_answer_but_401_and_407_is_a_demand() -> None:
    assert (
        not Authority(MUFASA)
        .attempt()
        .challenged(Message(headers=demand('Digest realm="a", nonce="1"').headers, code=403))
    )


def test_the_password_is_in_no_representation() -> None:
    assert MUFASA.password not in repr(MUFASA) + repr(Authority(MUFASA))
