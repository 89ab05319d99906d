"""What a client remembers of the challenges it met: it brings credentials along from then on (RFC 3261 22.2, 22.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.clients.sip.digest import Challenge, Credentials, answer, challenges_of
from harness.clients.sip.message import Header, Message

MOST_REALMS = 8

Protected = tuple[str, str]
"""Who demands: the header that answers (401 and 407 may both be met on one way), and the realm."""


@dataclass(kw_only=True)
class _Known:
    challenge: Challenge
    uses: int = 0


class Authority:
    """Challenges by who made them. A nonce is used again and counted until it is refused - by whichever node."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._known: dict[Protected, _Known] = {}

    def attempt(self) -> Attempt:
        """Begin a request; it is one attempt, however often it is challenged."""
        return Attempt(self)

    def learn(self, challenge: Challenge) -> None:
        key = (challenge.header, challenge.realm)
        if key not in self._known and len(self._known) >= MOST_REALMS:
            self._known.pop(next(iter(self._known)))
        self._known[key] = _Known(challenge=challenge)

    def headers(self, *, method: str, uri: str) -> Sequence[Header]:
        """The credentials for a request, as far as they were ever asked for."""
        found = []
        for known in self._known.values():
            known.uses += 1
            found.append(answer(known.challenge, self.credentials, method=method, uri=uri, count=known.uses))
        return found


class Attempt:
    """One request and its challenges. Credentials made for a challenge met within it are made once: refused again, the
    password is wrong - unless the nonce was only stale. Credentials brought along from before may always be refused:
    their nonce may have aged, or be another node's."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._met: dict[Protected, int] = {}

    def headers(self, *, method: str, uri: str) -> Sequence[Header]:
        return self._authority.headers(method=method, uri=uri)

    def challenged(self, message: Message) -> bool:
        """Whether this final answer is a demand that can be met by asking once more; it is remembered."""
        demands = challenges_of(message)
        fresh = []
        for challenge in demands:
            key = (challenge.header, challenge.realm)
            met = self._met.get(key, 0)
            if met == 0 or (met == 1 and challenge.stale):
                fresh.append(challenge)
                self._met[key] = met + 1
        if not fresh or len(self._met) > MOST_REALMS:
            return False
        for challenge in fresh:
            self._authority.learn(challenge)
        return True
