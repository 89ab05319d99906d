"""The harness's EC2 client is made of what it is given, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cloud import Cloud
from harness.cloud_calls import CloudError
from harness.errors import UsageError

NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize("variable", ["AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_the_users_own_aws_settings_have_no_say(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "config"
    broken.write_text("[default]\nendpoint_url = http://198.51.100.1\n[broken")
    monkeypatch.setenv(variable, "no-such-profile" if variable == "AWS_PROFILE" else str(broken))
    cloud = Cloud(endpoint_url=NOWHERE, access_key_id="A", secret_access_key="s")
    with pytest.raises(CloudError, match=r"Could not connect to the endpoint URL: .http://127\.0\.0\.1:1/") as raised:
        cloud.instance_state("i-12345678")
    assert raised.value.code == "EndpointConnectionError"


def test_without_an_endpoint_nothing_is_called() -> None:
    with pytest.raises(UsageError, match="real AWS is not supported"):
        Cloud(endpoint_url=None, access_key_id="A", secret_access_key="s")
