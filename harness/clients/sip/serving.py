"""The other half of a user agent: what comes in. Answers go to their requests, requests are answered, and whatever is
repeated gets what it got before. Nothing that comes in raises."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.clients.sip.message import Header, Message, response, uri_of
from harness.clients.sip.session import ALLOW, SDP, Session, new_tag
from harness.clients.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from harness.clients.sip.agent import UserAgent

MOST_SESSIONS = 50
"""Calls that one client takes at a time."""

MOST_ACKS = 100


class Acks(OrderedDict[tuple[str, int], bytes]):
    """The ACKs of the last 2xx answers, to be sent again for each repetition."""

    def __setitem__(self, key: tuple[str, int], value: bytes) -> None:
        super().__setitem__(key, value)
        while len(self) > MOST_ACKS:
            self.popitem(last=False)


class Serving:
    """Takes the messages of one user agent. `received_ns` is when the last one came."""

    def __init__(self, agent: UserAgent) -> None:
        self.received_ns = 0
        self.acks = Acks()
        self._agent = agent

    def take(self, message: Message, received_ns: int) -> None:
        self.received_ns = received_ns
        if message.is_response:
            self._response(message)
            return
        known = self._agent.layer.find(message)
        if message.method == "ACK":
            self._ack(message, known)
        elif known is not None and message.method != "CANCEL":
            known.repeated()
        else:
            self._request(message, received_ns)

    def _response(self, message: Message) -> None:
        if self._agent.layer.response(message):
            return
        number, method = message.cseq
        if method == "INVITE" and 200 <= message.code < 300:
            again = self.acks.get((message.call_id, number))
            if again is not None:
                self._agent.write(again)

    def _ack(self, message: Message, known: ServerTransaction | None) -> None:
        if known is not None:
            known.ack()
            return
        session = self._agent.sessions.get(message.call_id)
        if session is not None and session.invite_server is not None:
            session.invite_server.ack()
            if message.body:
                session.remote_sdp = message.body

    def _request(self, message: Message, received_ns: int) -> None:
        session = self._session_of(message)
        method = message.method
        if method == "CANCEL":
            self._cancel(message)
        elif method == "INVITE" and not message.to_tag:
            self._invite(message)
        elif method == "OPTIONS" and not message.to_tag:
            self._answer(message, 200, "OK", [ALLOW])
        elif session is None:
            self._answer(message, 481, "Call/Transaction Does Not Exist")
        elif message.cseq[0] < session.remote_cseq:
            self._answer(message, 500, "CSeq Out Of Order")
        else:
            session.remote_cseq = message.cseq[0]
            self._in_dialog(session, message, received_ns)

    def _session_of(self, message: Message) -> Session | None:
        """The dialog a request belongs to (RFC 3261 12.2.2): Call-ID and both tags."""
        session = self._agent.sessions.get(message.call_id)
        if session is None or message.to_tag != session.local_tag:
            return None
        return session if session.remote_tag in ("", message.from_tag) and session.state != "ended" else None

    def _in_dialog(self, session: Session, message: Message, received_ns: int) -> None:
        method = message.method
        if method == "BYE":
            self._answer(message, 200, "OK")
            session.end("remote")
            session.on_bye(received_ns)
        elif method == "INVITE":
            self._reinvite(session, message, received_ns)
        elif method == "UPDATE":
            session.refresh(message)
            body = session.local_sdp if message.body else b""
            headers = [session.contact, ALLOW, *([SDP] if body else []), *_timer(message)]
            self._answer(message, 200, "OK", headers, body)
            session.on_update(received_ns)
        elif method == "REFER":
            self._answer(message, 202, "Accepted", [session.contact])
            session.on_refer(received_ns, uri_of(message.get("refer-to") or ""))
        elif method in ("INFO", "NOTIFY", "OPTIONS", "MESSAGE"):
            self._answer(message, 200, "OK")
        else:
            self._answer(message, 405, "Method Not Allowed", [ALLOW])

    def _reinvite(self, session: Session, message: Message, received_ns: int) -> None:
        if session.pending_invite:
            self._answer(message, 491, "Request Pending")
            return
        session.refresh(message)
        headers = [session.contact, ALLOW, SDP, *_timer(message)]
        session.invite_server = self._answer(message, 200, "OK", headers, session.local_sdp)
        session.on_reinvite(received_ns)

    def _invite(self, message: Message) -> None:
        agent = self._agent
        alive = sum(session.state != "ended" for session in agent.sessions.values())
        if agent.on_call is None or alive >= MOST_SESSIONS or not message.get("contact"):
            self._answer(message, 486, "Busy Here")
            return
        tag = new_tag()
        session = Session(
            agent,
            side="callee",
            call_id=message.call_id,
            local=f"{message.get('to')};tag={tag}",
            remote=message.get("from") or "",
            target=uri_of(message.get("contact") or ""),
        )
        session.routes = tuple(message.all("record-route"))
        session.remote_cseq = message.cseq[0]
        session.remote_sdp = message.body
        session.branch = message.branch
        agent.sessions[session.call_id] = session
        session.invite_server = self._serve(message)
        ringing = response(message, 180, "Ringing", to_tag=tag, headers=[agent.contact])
        session.invite_server.answer(ringing, code=180)
        agent.spawn(self._decide(session, message, tag))

    async def _decide(self, session: Session, message: Message, tag: str) -> None:
        agent = self._agent
        assert agent.on_call is not None and session.invite_server is not None
        answer = await agent.on_call(session)
        if session.state != "ringing":
            return  # taken back meanwhile, and answered
        if answer is None or answer.code >= 300:
            code, reason = (486, "Busy Here") if answer is None else (answer.code, answer.reason)
            session.code = code
            session.invite_server.answer(response(message, code, reason, to_tag=tag), code=code)
            session.state, session.ended_by = "ended", "local"
            return
        session.local_sdp, session.code, session.state = answer.sdp, answer.code, "up"
        headers = [agent.contact, ALLOW, SDP, *_timer(message)]
        data = response(message, answer.code, answer.reason, to_tag=tag, headers=headers, body=answer.sdp)
        session.invite_server.unacknowledged = lambda: agent.spawn(session.bye())
        session.invite_server.answer(data, code=answer.code)

    def _cancel(self, message: Message) -> None:
        """CANCEL of an INVITE that rings here (RFC 3261 9.2)."""
        session = self._agent.sessions.get(message.call_id)
        ringing = session is not None and session.state == "ringing" and session.branch == message.branch
        if session is None or not ringing or session.invite_server is None:
            self._answer(message, 481, "Call/Transaction Does Not Exist")
            return
        self._answer(message, 200, "OK")
        refused = response(_as_invite(message), 487, "Request Terminated", to_tag=session.local_tag)
        session.state, session.ended_by = "ended", "remote"
        session.invite_server.answer(refused, code=487)

    def _serve(self, message: Message) -> ServerTransaction:
        agent = self._agent
        transaction = ServerTransaction(
            method=message.method,
            reliable=agent.behaviour.transport != "udp",
            timers=agent.loop,
            write=agent.write,
        )
        agent.layer.serve(message, transaction)
        return transaction

    def _answer(
        self, message: Message, code: int, reason: str, headers: Sequence[Header] = (), body: bytes = b""
    ) -> ServerTransaction:
        transaction = self._serve(message)
        tag = message.to_tag or new_tag()
        transaction.answer(response(message, code, reason, to_tag=tag, headers=headers, body=body), code=code)
        return transaction


def _as_invite(cancel: Message) -> Message:
    """The INVITE that a CANCEL is about, as far as an answer needs it: the same headers, another method in CSeq."""
    headers = [(n, f"{cancel.cseq[0]} INVITE" if n == "cseq" else v) for n, v in cancel.headers]
    return Message(headers=tuple(headers), method="INVITE", uri=cancel.uri)


def _timer(message: Message) -> Sequence[Header]:
    """Agree to the session timer that a request asks for (RFC 4028 9); who asked refreshes unless it says otherwise."""
    value = message.get("session-expires")
    if value is None:
        return ()
    seconds, _, parameters = value.partition(";")
    refresher = "uas" if "refresher=uas" in parameters.replace(" ", "").lower() else "uac"
    return [("Require", "timer"), ("Session-Expires", f"{seconds.strip()};refresher={refresher}")]
