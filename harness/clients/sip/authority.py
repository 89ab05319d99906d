"""What a client remembers of the challenges it met: it brings credentials along from then on (RFC 3261 22.2, 22.3)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.clients.sip.digest import BadChallenge, Challenge, Credentials, answer, challenge_of
from harness.clients.sip.message import Header, Message


class Authority:
    """One challenge per header (401 and 407 may both be met); a nonce is used again and counted until it is refused."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._challenges: dict[str, tuple[Challenge, int]] = {}

    def challenged(self, message: Message) -> bool:
        """Whether this answer is a demand that can be met by asking once more; it is remembered."""
        if message.code not in (401, 407):
            return False
        try:
            challenge = challenge_of(message)
        except BadChallenge:
            return False
        self._challenges[challenge.header] = (challenge, 0)
        return True

    def headers(self, *, method: str, uri: str) -> Sequence[Header]:
        """The credentials for a request, as far as they were ever asked for."""
        found = []
        for name, (challenge, uses) in self._challenges.items():
            self._challenges[name] = (challenge, uses + 1)
            found.append(answer(challenge, self.credentials, method=method, uri=uri, count=uses + 1))
        return found
