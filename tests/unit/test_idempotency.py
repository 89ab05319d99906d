"""Client tokens: once, the same answer, for a day; failures do not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.region.calls import AwsError, Call
from harness.region.idempotency import REMEMBERED_S, Tokens, digest_of


def call(request_id: str = "r", **params: str) -> Call:
    return Call(
        service="ec2", action="CreateVolume", params=params, access_key_id="", source="", request_id=request_id
    )  # fmt: skip


class Work:
    """Makes volumes; the first `failures` times it fails."""

    def __init__(self, failures: int = 0) -> None:
        self.done = 0
        self.failures = failures

    def __call__(self) -> bytes:
        self.done += 1
        if self.done <= self.failures:
            raise AwsError("InternalError", "no", 500)
        return f"<R><requestId>r</requestId><volumeId>vol-{self.done}</volumeId></R>".encode()


def test_the_same_answer_under_the_request_id_of_the_repeated_call() -> None:
    tokens, work = Tokens(), Work()
    first = tokens.once(call("r", ClientToken="t", Size="1"), work)
    again = tokens.once(call("q", ClientToken="t", Size="1"), work)
    assert again == first.replace(b"<requestId>r<", b"<requestId>q<")
    assert work.done == 1


def test_without_a_token_every_call_counts() -> None:
    tokens, work = Tokens(), Work()
    assert tokens.once(call(Size="1"), work) != tokens.once(call(Size="1"), work)


def test_a_call_that_failed_does_not_use_its_token_up() -> None:
    tokens, work = Tokens(), Work(failures=1)
    with pytest.raises(AwsError, match="InternalError"):
        tokens.once(call(ClientToken="t"), work)
    assert b"vol-2" in tokens.once(call(ClientToken="t"), work)


def test_a_token_is_of_its_action_and_its_parameters() -> None:
    tokens, work = Tokens(), Work()
    tokens.once(call(ClientToken="t", Size="1"), work)
    with pytest.raises(AwsError, match="IdempotentParameterMismatch"):
        tokens.once(call(ClientToken="t", Size="2"), work)
    other = Call(
        service="ec2", action="RunInstances", params={"ClientToken": "t"}, access_key_id="", source="", request_id="r"
    )
    tokens.once(other, work)
    assert work.done == 2


def test_what_was_launched_and_terminated_is_told() -> None:
    tokens, work = Tokens(), Work()
    tokens.once(call(ClientToken="t"), work, gone=lambda _: True)
    with pytest.raises(AwsError, match="IdempotentInstanceTerminated"):
        tokens.once(call(ClientToken="t"), work, gone=lambda body: b"vol-1" in body)


def test_a_token_is_remembered_for_a_day_by_the_next_gateway_too(tmp_path: Path) -> None:
    path, work = tmp_path / "tokens.json", Work()
    now_s = 1e9
    Tokens(path=path, wall_s=lambda: now_s).once(call(ClientToken="t"), work)
    next_one = Tokens.read(path)
    next_one.wall_s = lambda: now_s
    now_s += REMEMBERED_S - 1
    next_one.once(call(ClientToken="t"), work)
    assert work.done == 1
    now_s += 2
    next_one.once(call(ClientToken="t"), work)
    assert work.done == 2


@pytest.mark.parametrize("token", ["x" * 65, "tökén"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(AwsError, match="InvalidParameterValue"):
        Tokens().once(call(ClientToken=token), Work())


def test_signatures_make_no_difference() -> None:
    signed = {"Size": "1", "ClientToken": "t", "X-Amz-Date": "now", "Signature": "s"}
    assert digest_of({"Size": "1"}) == digest_of(signed) != digest_of({"Size": "2"})
