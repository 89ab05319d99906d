"""How AWS, or its stand-in, is called: clients that nobody's AWS settings can change, errors in our words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, cast

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader

from harness.errors import InfrastructureError
from harness.topology import REGION_NAME

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 30
POLL_S = 0.05
"""How often the end of something that AWS does in its own time is asked for."""

_NOBODYS_SETTINGS: Any = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""The AWS profile and files of whoever runs the harness have no say here: a wrong one would stop every call."""


class CloudError(InfrastructureError):
    """An EC2 call that failed; `code` is EC2's own, or the client's when there was no answer."""

    def __init__(self, action: str, code: str, message: str) -> None:
        super().__init__(f"EC2 {action}: {code}: {message}")
        self.code = code


def clients(*, endpoint_url: str, access_key_id: str, secret_access_key: str) -> Callable[[str], Any]:
    """A maker of boto3 clients by the name of their service; they make each call once and never retry it."""
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": 1},
        proxies={},
    )
    session = boto3.session.Session(
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name=REGION_NAME,
        botocore_session=_botocore(),
    )
    return partial(cast(Any, session).client, endpoint_url=endpoint_url, config=config)


@contextmanager
def calling(action: str) -> Iterator[None]:
    """Turn botocore's errors into ours: `CloudError` with EC2's own code."""
    try:
        yield
    except ClientError as error:
        detail = error.response["Error"]
        raise CloudError(action, detail.get("Code", "?"), detail.get("Message", "")) from error
    except BotoCoreError as error:
        raise CloudError(action, type(error).__name__, str(error)) from error


@cache
def _models() -> Loader:
    """botocore's models of the services: reading EC2's takes a tenth of a second and more, once for all clients."""
    return create_loader()


def _botocore() -> botocore.session.Session:
    session = botocore.session.Session(session_vars=_NOBODYS_SETTINGS)
    session.register_component("data_loader", _models())
    return session
