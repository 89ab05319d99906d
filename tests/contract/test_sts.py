"""Security Token Service: who a caller is."""

from __future__ import annotations

import re

from tests.contract.local import LocalSite
from tests.contract.promises import DATA_PLANE, STS_API, promise
from tests.contract.site import Site

SOURCE = f"{STS_API}API_GetCallerIdentity.html"
IDENTIFIERS = "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html"


@promise("sts:GetCallerIdentity", "an account of twelve digits, and an ARN within it", source=SOURCE)
def test_the_account_of_a_caller(site: Site) -> None:
    told = site.client("sts").get_caller_identity()
    assert re.fullmatch(r"\d{12}", told["Account"])
    assert told["Arn"].split(":")[4] == told["Account"] and told["UserId"]


@promise(
    "sts:GetCallerIdentity",
    "a node is its role, in a session named after the instance",
    source=IDENTIFIERS,
    local_only=DATA_PLANE,
)
def test_a_node_is_its_role(site: LocalSite, two: tuple[str, str]) -> None:
    told = site.client("sts", site.instances.specs[two[0]].access_key_id).get_caller_identity()
    assert re.fullmatch(rf"arn:aws:sts::\d{{12}}:assumed-role/[\w+=,.@-]+/{two[0]}", told["Arn"])
    assert told["UserId"].endswith(f":{two[0]}")
