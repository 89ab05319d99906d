"""The other half of a user agent: what is asked of it. Requests are answered, and whatever is repeated gets what it got
before. Nothing that comes in raises, and what is kept is bounded however much comes in."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from harness.clients.sip import refusals, session_timer
from harness.clients.sip.dialog import new_branch, way
from harness.clients.sip.exchange import Exchange, new_tag
from harness.clients.sip.message import BadRequest, Header, Message, request, response, uri_of
from harness.clients.sip.reply import Answer
from harness.clients.sip.session import ALLOW, SDP, Session
from harness.clients.sip.session_timer import Accepted, TooOften
from harness.clients.sip.transaction import ServerTransaction

MOST_SESSIONS = 50
"""Calls that one client takes at a time."""

MOST_UNACKNOWLEDGED = 4
"""2xx of one call that may wait for their ACK; after that its INVITEs are told to wait (14.2)."""

_SIPFRAG = re.compile(rb"SIP/2\.0 ([1-6][0-9][0-9])\b")

OnCall = Callable[[Session], Awaitable[Answer | None]]
"""How to answer a call; None: 486 Busy Here."""


class Serving:
    """Takes the requests that come to one client. `sessions` are its calls, by Call-ID and our tag."""

    def __init__(self, exchange: Exchange, *, on_call: OnCall | None) -> None:
        self.sessions: dict[tuple[str, str], Session] = {}
        self.on_call = on_call
        self._exchange = exchange

    def bad(self, bad: BadRequest) -> None:
        """A request that can't be understood is told so, without a transaction."""
        self._exchange.write(response(bad.request, bad.code, str(bad), to_tag=new_tag()))

    def take(self, message: Message, received_ns: int) -> None:
        if message.is_response:
            self._exchange.response(message, received_ns)
            if message.cseq[1] == "INVITE" and 200 <= message.code < 300:
                self._another_branch(message)
            return
        known = self._exchange.layer.find(message)
        if message.method == "ACK":
            self._ack(message, known)
        elif known is not None:
            known.repeated()
        else:
            self._request(message, received_ns)

    def add(self, session: Session) -> None:
        self.sessions[session.call_id, session.local_tag] = session

    def remove(self, session: Session) -> None:
        self.sessions.pop((session.call_id, session.local_tag), None)

    def _request(self, message: Message, received_ns: int) -> None:
        refusal = refusals.of(message, merged=self._exchange.layer.merged(message))
        session = self.sessions.get((message.call_id, message.to_tag))
        if session is not None and session.remote_tag not in ("", message.from_tag):
            session = None
        if refusal is not None:
            self._answer(message, refusal.code, refusal.reason, refusal.headers)
        elif message.method == "CANCEL":
            self._cancel(message, received_ns)
        elif not message.to_tag:
            self._outside(message)
        elif session is None:
            self._answer(message, 481, "Call/Transaction Does Not Exist")
        elif message.cseq[0] < session.remote_cseq:
            self._answer(message, 500, "CSeq Out Of Order")
        else:
            session.remote_cseq = message.cseq[0]
            self._inside(session, message, received_ns)

    def _outside(self, message: Message) -> None:
        if message.method == "INVITE":
            self._invite(message)
        elif message.method in ("OPTIONS", "MESSAGE", "NOTIFY", "INFO"):
            self._answer(message, 200, "OK", [ALLOW, ("Accept", "application/sdp"), ("Supported", "timer")])
        else:
            self._answer(message, 481, "Call/Transaction Does Not Exist")

    def _inside(self, session: Session, message: Message, received_ns: int) -> None:
        method = message.method
        if method == "BYE":
            self._answer(message, 200, "OK")
            if session.state == "ringing":
                session.take_back()
            session.end("remote")
            session.on_bye(received_ns)
        elif method in ("INVITE", "UPDATE"):
            self._offered(session, message, received_ns)
        elif method == "REFER":
            self._refer(session, message, received_ns)
        else:
            self._answer(message, 200, "OK")
            found = _SIPFRAG.match(message.body) if method == "NOTIFY" else None
            if found and (message.get("event") or "").partition(";")[0].strip().lower() == "refer":
                session.on_transfer(received_ns, int(found[1]))

    def _offered(self, session: Session, message: Message, received_ns: int) -> None:
        """A re-INVITE or an UPDATE (RFC 3311)."""
        invite = message.method == "INVITE"
        if session.offering and (invite or message.body):
            self._answer(message, 491, "Request Pending")
            return
        if invite and (session.state != "up" or len(session.unacknowledged) >= MOST_UNACKNOWLEDGED):
            self._answer(message, 500, "Another INVITE Pending", [("Retry-After", "5")])
            return
        timer = session_timer.answer(message, own_s=self._exchange.behaviour.session_expires_s)
        if isinstance(timer, TooOften):
            self._too_often(message, timer)
            return
        session.refresh(message)
        body = b""
        if message.body:
            body = session.answer_sdp()
        elif invite:
            body = session.described(session.local_sdp)  # no offer: ours is one, and the ACK brings the answer
        self._accept(session, message, timer, body)
        (session.on_reinvite if invite else session.on_update)(received_ns)

    def _accept(self, session: Session, message: Message, timer: Accepted, body: bytes) -> None:
        transaction = self._serve(message)
        if message.method == "INVITE":
            session.unacknowledged[message.cseq[0]] = transaction
            transaction.unacknowledged = session.unheard
        headers = [session.contact, ALLOW, *([SDP] if body else []), *timer.headers]
        tag = session.local_tag
        transaction.answer(response(message, 200, "OK", to_tag=tag, headers=headers, body=body), code=200)
        session.arm_timer(timer.agreed, role="uas")

    def _refer(self, session: Session, message: Message, received_ns: int) -> None:
        targets = message.all("refer-to")
        if len(targets) != 1:
            self._answer(message, 400, "One Refer-To Wanted")
        elif session.on_refer is None:
            self._answer(message, 603, "Decline")
        elif session.referring:
            self._answer(message, 491, "Request Pending")
        else:
            session.referring = True
            self._answer(message, 202, "Accepted", [session.contact])
            self._exchange.spawn(self._transfer(session, uri_of(targets[0]), received_ns))

    async def _transfer(self, session: Session, uri: str, received_ns: int) -> None:
        """The implicit subscription of a REFER (RFC 3515 2.4.4): one NOTIFY at once, one at the end."""
        try:
            await session.notify_refer(100, "Trying")
            reply = await session.on_refer(received_ns, uri) if session.on_refer is not None else None
            code, reason = (603, "Decline") if reply is None else (reply.code or 408, reply.reason)
            await session.notify_refer(code, reason)
        finally:
            session.referring = False

    def _invite(self, message: Message) -> None:
        exchange = self._exchange
        contact = message.all("contact")
        if len(contact) != 1:
            self._answer(message, 400, "One Contact Wanted")
            return
        if self.on_call is None or len(self.sessions) >= MOST_SESSIONS:
            self._answer(message, 486, "Busy Here")
            return
        timer = session_timer.answer(message, own_s=exchange.behaviour.session_expires_s)
        if isinstance(timer, TooOften):
            self._too_often(message, timer)
            return
        tag = new_tag()
        session = Session(
            exchange,
            side="callee",
            call_id=message.call_id,
            local=f"{message.get('to')};tag={tag}",
            remote=message.get("from") or "",
            target=uri_of(contact[0]),
            closed=self.remove,
        )
        session.routes = tuple(message.all("record-route"))
        session.remote_cseq = message.cseq[0]
        session.refresh(message)
        self.add(session)
        transaction = self._serve(message)
        transaction.unacknowledged = session.unheard
        session.unacknowledged[message.cseq[0]] = transaction
        terminated = response(message, 487, "Request Terminated", to_tag=tag)
        session.take_back = lambda: self._refuse(session, transaction, terminated, 487)
        transaction.answer(response(message, 180, "Ringing", to_tag=tag, headers=[session.contact]), code=180)
        exchange.spawn(self._decide(session, message, transaction, timer))

    async def _decide(
        self, session: Session, message: Message, transaction: ServerTransaction, timer: Accepted
    ) -> None:
        answer = Answer(code=500, reason="Server Internal Error")
        try:
            assert self.on_call is not None
            answer = await self.on_call(session) or Answer(code=486, reason="Busy Here")
        finally:
            if session.state == "ringing":  # not taken back meanwhile
                self._decided(session, message, transaction, timer, answer)

    def _decided(
        self, session: Session, message: Message, transaction: ServerTransaction, timer: Accepted, answer: Answer
    ) -> None:
        tag = session.local_tag
        session.code = answer.code
        if answer.code >= 300:
            refusal = response(message, answer.code, answer.reason, to_tag=tag)
            self._refuse(session, transaction, refusal, answer.code)
            session.end("local")
            return
        session.local_sdp, session.state, session.take_back = answer.sdp, "up", lambda: None
        body = session.answer_sdp() if message.body else session.described(answer.sdp)
        headers = [session.contact, ALLOW, SDP, *timer.headers]
        data = response(message, answer.code, answer.reason, to_tag=tag, headers=headers, body=body)
        transaction.answer(data, code=answer.code)
        session.arm_timer(timer.agreed, role="uas")

    def _ack(self, message: Message, known: ServerTransaction | None) -> None:
        if known is not None:
            known.ack()
            return
        session = self.sessions.get((message.call_id, message.to_tag))
        waiting = session.unacknowledged.pop(message.cseq[0], None) if session is not None else None
        if session is not None and waiting is not None:
            waiting.ack()
            if message.body:
                session.remote_sdp = message.body

    def _cancel(self, message: Message, received_ns: int) -> None:
        """CANCEL of an INVITE that rings here (RFC 3261 9.2); one that has its final answer is not changed by it."""
        invited = self._exchange.layer.invited(message)
        if invited is None:
            self._answer(message, 481, "Call/Transaction Does Not Exist")
            return
        self._answer(message, 200, "OK")
        for session in list(self.sessions.values()):
            if session.state == "ringing" and session.unacknowledged.get(message.cseq[0]) is invited:
                session.take_back()
                session.end("remote")
                session.on_cancel(received_ns)

    @staticmethod
    def _refuse(session: Session, transaction: ServerTransaction, data: bytes, code: int) -> None:
        """A refusal is the transaction's to repeat, whatever becomes of the session."""
        session.unacknowledged.clear()
        transaction.answer(data, code=code)

    def _another_branch(self, ok: Message) -> None:
        """A 2xx of another party that a forking proxy reached with our INVITE: acknowledged and ended (13.2.2.4)."""
        known = self._exchange.acks.get((ok.call_id, ok.cseq[0]))
        if known is None or known[0] == ok.to_tag or len(ok.all("via")) != 1:
            return
        target = next(map(uri_of, ok.all("contact")), "")
        if not target:
            return
        uri, routes = way(target, tuple(reversed(ok.all("record-route"))))
        for method, number in (("ACK", ok.cseq[0]), ("BYE", ok.cseq[0] + 1)):
            fixed = [
                self._exchange.via(new_branch()),
                *(("Route", route) for route in routes),
                ("Max-Forwards", "70"),
                ("From", ok.get("from") or ""),
                ("To", ok.get("to") or ""),
                ("Call-ID", ok.call_id),
                ("CSeq", f"{number} {method}"),
            ]
            self._exchange.write(request(method, uri, fixed))

    def _too_often(self, message: Message, timer: TooOften) -> None:
        self._answer(message, 422, "Session Interval Too Small", [("Min-SE", str(timer.min_se_s))])

    def _serve(self, message: Message) -> ServerTransaction:
        behaviour = self._exchange.behaviour
        transaction = ServerTransaction(
            method=message.method,
            reliable=behaviour.reliable,
            timers=self._exchange.loop,
            write=self._exchange.write,
            t1_s=behaviour.timer_t1_s,
        )
        self._exchange.layer.serve(message, transaction)
        return transaction

    def _answer(self, message: Message, code: int, reason: str, headers: Sequence[Header] = ()) -> None:
        data = response(message, code, reason, to_tag=message.to_tag or new_tag(), headers=headers)
        self._serve(message).answer(data, code=code)
