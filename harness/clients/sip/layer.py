"""All transactions of one client: which message belongs to which (RFC 3261 17.1.3, 17.2.3, 8.2.2.2)."""

from __future__ import annotations

import re

from harness.clients.sip.message import Message
from harness.clients.sip.transaction import ClientTransaction, ServerTransaction

COOKIE = "z9hG4bK"
MOST_SERVED = 100
"""Requests of the PBX remembered at most; the oldest is forgotten first."""

_SENT_BY = re.compile(r"^\S+\s*/\s*\S+\s*/\s*\S+\s+([^\s;]+)")

Key = tuple[str, ...]


class Layer:
    """What a client asked and what it was asked. It is small however much comes in."""

    __slots__ = ("_by_call", "asked", "served")

    def __init__(self) -> None:
        self.asked: dict[Key, ClientTransaction] = {}
        self.served: dict[Key, ServerTransaction] = {}
        self._by_call: dict[Key, Key] = {}

    def ask(self, branch: str, transaction: ClientTransaction) -> None:
        key = (branch, transaction.method)
        self.asked[key] = transaction
        transaction.gone = lambda: self._drop_asked(key, transaction)
        transaction.start()

    def response(self, message: Message, received_ns: int) -> bool:
        """Hand an answer to the request it belongs to; False when there is none."""
        transaction = self.asked.get((message.branch, message.cseq[1]))
        if transaction is None:
            return False
        transaction.answered(message, received_ns)
        return True

    def find(self, message: Message) -> ServerTransaction | None:
        """The transaction of a request that was seen before; the ACK of a refusal belongs to its INVITE."""
        return self.served.get(_key(message))

    def invited(self, cancel: Message) -> ServerTransaction | None:
        """The INVITE that a CANCEL is about: all the same but the method (9.2)."""
        return self.served.get(_key(cancel, method="INVITE"))

    def merged(self, message: Message) -> bool:
        """Whether a request outside any dialog is one that is being served, come another way (8.2.2.2)."""
        return not message.to_tag and self._by_call.get(_call(message), _key(message)) != _key(message)

    def serve(self, message: Message, transaction: ServerTransaction) -> None:
        key, call = _key(message), _call(message)
        self.served[key] = transaction
        self._by_call[call] = key
        transaction.gone = lambda: self._drop_served(key, call, transaction)
        while len(self.served) > MOST_SERVED:
            oldest = next(iter(self.served.values()))
            oldest.forget()
            oldest.gone()

    def abandon(self) -> None:
        """The path is gone: every request of ours ends unanswered."""
        for transaction in list(self.asked.values()):
            transaction.abandon()

    def stop(self) -> None:
        """Nothing of this client is sent any more."""
        self.abandon()
        for asked in self.asked.values():
            asked.forget()
        for served in self.served.values():
            served.forget()
        self.asked.clear()
        self.served.clear()
        self._by_call.clear()

    def _drop_asked(self, key: Key, transaction: ClientTransaction) -> None:
        if self.asked.get(key) is transaction:
            del self.asked[key]

    def _drop_served(self, key: Key, call: Key, transaction: ServerTransaction) -> None:
        if self.served.get(key) is transaction:
            del self.served[key]
            if self._by_call.get(call) == key:
                del self._by_call[call]


def _key(message: Message, *, method: str | None = None) -> Key:
    """What identifies a request: branch, sender and method; without a branch of RFC 3261 what RFC 2543 went by."""
    method = method or ("INVITE" if message.method == "ACK" else message.method)
    via = next(iter(message.all("via")), "")
    found = _SENT_BY.match(via)
    sent_by = found[1].lower() if found else ""
    branch = message.branch
    if branch.startswith(COOKIE) and len(branch) > len(COOKIE):
        return branch, sent_by, method
    return message.uri, message.from_tag, message.call_id, str(message.cseq[0]), sent_by, method


def _call(message: Message) -> Key:
    return message.from_tag, message.call_id, str(message.cseq[0]), message.method
