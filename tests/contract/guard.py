"""Nobody's account is touched by accident: when the contract may run on AWS, and what stops every other call to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest

OPTION = "--aws"
VARIABLE = "PBX_CHAOS_AWS_CONTRACT"
CONSENT = "yes-and-i-pay"
"""Instances, volumes and addresses are made and deleted: about an hour of two of the smallest instances."""

TEST_NETWORKS = tuple(map(IPv4Network, ("127.0.0.0/8", "198.18.0.0/15", "203.0.113.0/24")))


class AwsContact(AssertionError):
    """A test was about to talk to somewhere that is not a local region."""


def refusal(*, asked: bool, environment: Mapping[str, str]) -> str | None:
    """Why the contract does not run on AWS, in words; None when it may: asked for, paid for, and with credentials."""
    if not asked:
        return f"not asked for ({OPTION})"
    if environment.get(VARIABLE) != CONSENT:
        return f"{OPTION} costs money: say so with {VARIABLE}={CONSENT}"
    if not any(environment.get(name) for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID")):
        return f"{OPTION} needs credentials: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if region(environment) is None:
        return f"{OPTION} needs a region: AWS_REGION"
    return None


def region(environment: Mapping[str, str]) -> str | None:
    """Where: AWS_REGION as other SDKs read it, or boto3's own AWS_DEFAULT_REGION."""
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None


def is_local(url: str) -> bool:
    """Whether an address can be a local region's: the loopback, or one of the networks set aside for tests."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return any(ip_address(host) in network for network in TEST_NETWORKS)
    except ValueError:
        return False


def guarded(send: Callable[..., Any]) -> Callable[..., Any]:
    """botocore's `send`, which raises `AwsContact` instead of leaving this host."""

    def only_local(session: object, request: AWSPreparedRequest) -> Any:
        if not is_local(request.url):
            raise AwsContact(f"{urlsplit(request.url).hostname} is not a local region: {OPTION} was not allowed")
        return send(session, request)

    return only_local
