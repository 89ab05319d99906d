"""Client tokens: the same call with the same token is carried out once, however often and by whomever it is repeated.

AWS, "Ensuring idempotency in Amazon EC2 API requests": a repeated call with the same token and parameters gets the
first one's answer and does nothing, with other parameters IdempotentParameterMismatch. A token is remembered for a day,
also by the next gateway; a call that failed does not use its token up. That a call waits for its twin which is still
under way is ours.

Answers are kept in a file of their own, written after the call was carried out. What makes machines and disks has its
token in the record of what it made as well (`marks`), so that a gateway that is killed before its answer was kept, and
the next one, make nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock

from harness.region.calls import AwsError, Call
from harness.region.files import write_json

FILE = "client-tokens.json"
REMEMBERED_S = 24 * 3600.0
MAX_CHARACTERS = 64
TURNS = 256
"""Tokens that share a turn wait for each other, which nobody notices."""

_UNLIKE = re.compile(r"^(ClientToken|Signature|AWSAccessKeyId|Timestamp|Expires|X-Amz-.*)$", re.IGNORECASE)
"""Parameters in which two identical calls may differ."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A call that was carried out: when (seconds since the epoch), a digest of what it asked for, its answer."""

    at_s: float
    digest: str
    body: str


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the records say of a token: a digest of what the call asked for, and an answer to it as things are now."""

    digest: str
    body: bytes


@dataclass(kw_only=True)
class Tokens:
    """What has been answered under which token; safe to use from several threads."""

    path: Path | None = None
    wall_s: Callable[[], float] = time.time
    _answered: dict[str, Answered] = field(default_factory=dict)
    _turns: tuple[Lock, ...] = field(default_factory=lambda: tuple(Lock() for _ in range(TURNS)))
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Those of a gateway before this one; none when there is no file."""
        tokens = cls(path=path)
        if path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
            tokens._answered = {key: Answered(**row) for key, row in rows.items()}
        return tokens

    def once(
        self,
        call: Call,
        work: Callable[[], bytes],
        *,
        gone: Callable[[bytes], bool] = lambda _: False,
        made: Callable[[str], Made | None] = lambda _: None,
    ) -> bytes:
        """The answer to `call`: that of `work`, or of the call before it with the same token.

        `gone` says of an answer given before that what it made is no more (RunInstances: IdempotentInstanceTerminated);
        `made` finds what the records hold of a token whose answer was never kept.
        """
        token = call.get("ClientToken")
        if token is None:
            return work()
        if len(token) > MAX_CHARACTERS or not token.isascii():
            raise AwsError("InvalidParameterValue", f"ClientToken has at most {MAX_CHARACTERS} ASCII characters.")
        key, digest = f"{call.action}/{token}", digest_of(call.params)
        with self._turns[hash(key) % TURNS]:
            answered = self._answered.get(key)
            if answered is not None and answered.at_s >= self.wall_s() - REMEMBERED_S:
                known = Made(digest=answered.digest, body=answered.body.encode())
            elif (found := made(token)) is not None:
                known = found
            else:
                body = work()
                self._remember(key, Answered(at_s=self.wall_s(), digest=digest, body=body.decode()))
                return body
        if known.digest != digest:
            raise AwsError(
                "IdempotentParameterMismatch",
                f"Arguments on this idempotent request are inconsistent with arguments used in previous request(s) "
                f"with the client token {token}.",
            )
        if gone(known.body):
            raise AwsError("IdempotentInstanceTerminated", "The instance launched with this token is terminated.")
        return re.sub(b"<requestId>[^<]*", f"<requestId>{call.request_id}".encode(), known.body, count=1)

    def _remember(self, key: str, answered: Answered) -> None:
        with self._lock:
            since_s = self.wall_s() - REMEMBERED_S
            self._answered = {k: a for k, a in self._answered.items() if a.at_s >= since_s} | {key: answered}
            if self.path is not None:
                write_json(self.path, {k: asdict(a) for k, a in self._answered.items()})


def marks(call: Call) -> tuple[str, str]:
    """What a record keeps of the call that made it: `client_token` and `token_digest`, empty without a token."""
    token = call.get("ClientToken")
    return ("", "") if token is None else (token, digest_of(call.params))


def digest_of(params: Mapping[str, str]) -> str:
    """What a call asks for, in a few characters; two calls that ask for the same have the same."""
    asked = sorted((k, v) for k, v in params.items() if not _UNLIKE.match(k))
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
