"""The agents' way to EC2: signatures like botocore's, errors told apart, credentials looked up in boto3's order."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from urllib.parse import urlencode

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agents import Clock, load_agent

TEXT = st.text(min_size=1, max_size=40)
NAME = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    module = load_agent("ec2.py", monkeypatch)
    monkeypatch.setattr(module, "SETTINGS", str(tmp_path / "env"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return module


@given(
    params=st.dictionaries(TEXT, TEXT, max_size=5), secret=NAME, token=st.none() | NAME, moment_s=st.integers(0, 2**32)
)
def test_a_signature_is_the_one_botocore_makes(
    params: dict[str, str], secret: str, token: str | None, moment_s: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        ours = load_agent("ec2.py", monkeypatch)
        moment = time.gmtime(moment_s)
        host, body = "ec2.eu-west-1.amazonaws.com", urlencode({"Action": "DescribeVolumes", **params})
        headers = ours.signed(host=host, body=body, region="eu-west-1", keys=("AKIA0", secret, token), moment=moment)
        request = AWSRequest("POST", f"https://{host}/", headers={"content-type": ours.FORM}, data=body)
        request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", moment)
        signer = botocore.auth.SigV4Auth(Credentials("AKIA0", secret, token), "ec2", "eu-west-1")
        request.headers["X-Amz-Date"] = request.context["timestamp"]
        if token:
            request.headers["X-Amz-Security-Token"] = token
        canonical = signer.canonical_request(request)
        signature = signer.signature(signer.string_to_sign(request, canonical), request)
        assert headers["authorization"].endswith(f"Signature={signature}")
        assert f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(request))}," in headers["authorization"]
        assert f"Credential={signer.scope(request)}," in headers["authorization"]


def test_an_answer_has_no_name_spaces_and_an_error_its_code(ec2: ModuleType) -> None:
    answer = b'<DescribeVolumesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><a><b>c</b></a></DescribeVolumesResponse>'
    assert ec2.parsed(200, answer).findtext("a/b") == "c"
    error = b"<Response><Errors><Error><Code>VolumeInUse</Code><Message>no</Message></Error></Errors></Response>"
    with pytest.raises(ec2.ApiError, match="VolumeInUse: no") as raised:
        ec2.parsed(400, error)
    assert not raised.value.transient
    with pytest.raises(ec2.ApiError, match="Http502: Bad Gateway") as raised:
        ec2.parsed(502, b"Bad Gateway")
    assert raised.value.transient


@pytest.mark.parametrize(
    ("code", "status", "transient", "refused"),
    [
        ("RequestLimitExceeded", 503, True, False),
        ("Throttling", 400, True, False),
        ("SomethingNew", 502, True, False),
        ("UnauthorizedOperation", 403, False, True),
        ("IncorrectState", 400, False, False),
    ],
)
def test_errors_are_told_apart(ec2: ModuleType, code: str, status: int, transient: bool, refused: bool) -> None:
    error = ec2.ApiError(code, "", status)
    assert (error.transient, error.refused) == (transient, refused)


def test_credentials_and_endpoint_come_from_where_boto3_looks(
    ec2: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ec2.Metadata, "role_keys", lambda self: ("ROLE", "r", "t"))
    monkeypatch.setattr(ec2.Metadata, "get", lambda self, path: {"placement/region": "cn-north-1"}[path])
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)

    def found(**given: str) -> tuple[str, str, str]:
        client = ec2.Ec2(**given)
        endpoint, region = client._where()
        return client._credentials()[0], endpoint.geturl(), region

    assert found() == ("ROLE", "https://ec2.cn-north-1.amazonaws.com.cn", "cn-north-1")
    (tmp_path / "config").write_text("[default]\nregion = eu-west-1\nendpoint_url = http://198.18.0.1:4566\n")
    assert found() == ("ROLE", "http://198.18.0.1:4566", "eu-west-1")
    (tmp_path / "credentials").write_text("[other]\naws_access_key_id = FILE\naws_secret_access_key = f\n")
    assert found(profile="other")[0] == "FILE"
    assert found(region="us-east-2", profile="other")[1:] == ("https://ec2.us-east-2.amazonaws.com", "us-east-2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENT")
    assert found(profile="other")[0] == "ENVIRONMENT"
    assert found(access_key="GIVEN", secret_key="g")[0] == "GIVEN"


def test_a_node_without_any_credentials_says_so(ec2: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ec2.Metadata, "find", lambda self, path: None)
    with pytest.raises(ec2.Unreachable, match="no credentials"):
        ec2.Ec2(region="eu-west-1").call("DescribeVolumes")


def test_persistence_ends_at_the_deadline_or_after_silence(ec2: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(ec2, "time", clock)

    def silent() -> None:
        raise ec2.Unreachable("timed out")

    for silence_s, least, most in ((None, 15, 20), (5.0, 5, 8)):
        began = clock.now_s
        with pytest.raises(ec2.Unreachable):
            ec2.persist(silent, deadline=began + 20, silence_s=silence_s)
        assert least < clock.now_s - began < most
    assert max(clock.slept) <= ec2.POLL_MOST_S
