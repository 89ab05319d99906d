"""One measured call from the caller's side: a single INVITE, audio both ways or not, and out of the way again.

The call is decided once: ok when both ends heard the other's own audio in time, fail on a refusal, info when the
deadline passed. After that it only cleans up: a late 200 is acknowledged and hung up, a late ringing is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from harness.clients.media import Audio
from harness.clients.road import Send
from harness.clients.sip.dialog import Dialog, Invitation, new_branch
from harness.clients.sip.digest import BadChallenge, Challenge, Credentials, answer, challenge_of
from harness.clients.sip.message import Header, Message
from harness.clients.sip.sdp import BadSdp, audio_address, describe
from harness.clients.sip.transport import Sent
from harness.clock import NS_PER_S, ms
from harness.history import OpType

Reached = Literal["sent", "trying", "ringing", "answered", "one_way", "audio"]

PACKETS = 2
"""Frames of the right audio that each end must hear."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call was decided, and when (CLOCK_MONOTONIC)."""

    kind: OpType
    time_ns: int
    error: str | None
    value: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the BYE of a call was answered: session disconnect delay and session duration time (RFC 6076 4.4, 4.5)."""

    time_ns: int
    code: int
    sdd_ms: float
    sdt_ms: float


class Line:
    """What the calls of one caller share: who it is, and the challenge it met last."""

    def __init__(self, *, credentials: Credentials) -> None:
        self.credentials = credentials
        self.challenge: Challenge | None = None
        self._uses = 0

    def challenged(self, response: Message) -> None:
        """Remember the demand of a 401 or 407; `BadChallenge` if it can't be met."""
        self.challenge = challenge_of(response)
        self._uses = 0

    def authorization(self, *, method: str, uri: str) -> tuple[Header, ...]:
        if self.challenge is None:
            return ()
        self._uses += 1
        return (answer(self.challenge, self.credentials, method=method, uri=uri, count=self._uses),)


class Call:
    """One attempt. `decided(call, outcome)` is called exactly once, `late(call, received_ns)` on a 200 after that,
    `ended(call, end)` when the BYE of this side is answered."""

    def __init__(
        self,
        *,
        n: int,
        session: str,
        invitation: Invitation,
        line: Line,
        send: Send,
        audio: Audio,
        deadline_s: float,
        decided: Callable[[Call, Outcome], None],
        late: Callable[[Call, int], None],
        ended: Callable[[Call, Ended], None],
    ) -> None:
        self.n = n
        self.sent_ns = 0
        self.deadline_ns = 0
        self.call_id = invitation.call_id
        self.outcome: Outcome | None = None
        self._session = session
        self._invitation = invitation
        self._line = line
        self._send = send
        self._audio = audio
        self._deadline_s = deadline_s
        self._decided = decided
        self._late = late
        self._ended = ended
        self._bye_ns: int | None = None
        self._rang_ns: int | None = None
        self._reached: Reached = "sent"
        self._cseq = 0
        self._branch = ""
        self._authorization: tuple[Header, ...] = ()
        self._challenged = False
        self._dialog: Dialog | None = None
        self._cancelled = False
        self._hung_up = False
        self._answered_ns: int | None = None
        self._code: int | None = None
        self._heard: dict[str, list[int]] = {"A": [], "B": []}

    def start(self, *, since_ns: int | None = None) -> Sent:
        """Send the INVITE, once. The deadline counts from `since_ns`, where the way to the PBX had to be made first."""
        sent = self._invite()
        self.sent_ns = sent.before_ns
        self.deadline_ns = (since_ns or sent.before_ns) + round(self._deadline_s * NS_PER_S)
        return sent

    def not_sent(self, sent: Sent) -> None:
        """The INVITE never left this host."""
        self._decide("fail", sent.after_ns, error=f"not sent: {sent.error}")

    def on_response(self, message: Message, received_ns: int) -> None:
        """An answer to a request of this call. An answer to its CANCEL needs nothing more."""
        number, method = message.cseq
        if method == "BYE":
            self._on_bye_answered(message, received_ns)
        if method != "INVITE":
            return
        if received_ns > self.deadline_ns:
            self.expire()
        if 200 <= message.code < 300:
            self._on_success(message, received_ns)
        elif number != self._cseq or message.branch != self._branch:
            return
        elif message.code < 200:
            self._on_provisional(message, received_ns)
        else:
            self._send(self._invitation.ack_refusal(message, branch=message.branch))
            self._on_refusal(message, received_ns)

    def on_hang_up(self, received_ns: int) -> None:
        """The other side sent BYE."""
        self._hung_up = True
        self._decide("fail", received_ns, error="ended by the PBX")

    def on_lost(self, error: str, at_ns: int) -> None:
        """An ICMP error about a request of this call, or the end of its connection."""
        self._decide("fail", at_ns, error=error)

    def on_audio(self, role: str, received_ns: int) -> None:
        """One frame of `role`'s audio of this call was heard at the other end."""
        if self.outcome is not None or received_ns > self.deadline_ns:
            return
        self._heard[role].append(received_ns)
        counts = [len(times) for times in self._heard.values()]
        if min(counts) >= PACKETS and self._answered_ns is not None:
            self._reached = "audio"
            both_ns = max(times[PACKETS - 1] for times in self._heard.values())
            self._decide("ok", max(both_ns, self._answered_ns))
        elif max(counts) >= PACKETS:
            self._reached = "one_way"

    def listen(self) -> None:
        """Hear what waits in the call's audio socket."""
        self._audio.read()

    def over(self, at_ns: int, *, linger_ns: int) -> bool:
        """Decided, and nothing that still comes matters."""
        return self.outcome is not None and at_ns > self.deadline_ns + linger_ns

    def expire(self) -> None:
        """The deadline has passed."""
        way = "to the callee" if len(self._heard["A"]) >= PACKETS else "to the caller"
        missing = {
            "sent": "no answer",
            "trying": "only 100 Trying",
            "ringing": "rang, was not answered",
            "answered": "answered, no audio",
            "one_way": f"audio only {way}",
        }
        error = f"{missing.get(self._reached, 'late')} within {self._deadline_s:g} s"
        self._decide("info", self.deadline_ns, error=error)

    def _on_success(self, message: Message, received_ns: int) -> None:
        if self._dialog is not None:  # a 200 again: its ACK was lost (RFC 3261 13.2.2.4)
            self._send(self._dialog.ack(headers=self._authorization))
            return
        self._dialog = self._invitation.established(message)
        self._send(self._dialog.ack(headers=self._authorization))
        if self.outcome is not None:
            self._hang_up()
            self._late(self, received_ns)
            return
        self._code = message.code
        self._answered_ns = received_ns
        self._reached = "answered"
        try:
            self._audio.start(audio_address(message.body))
        except BadSdp as error:
            self._decide("fail", received_ns, error=f"{message.code} without usable audio: {error}")

    def _on_provisional(self, message: Message, received_ns: int) -> None:
        if message.code > 100 and self._rang_ns is None:
            self._rang_ns = received_ns
        if self.outcome is None:
            self._reached = "trying" if message.code == 100 and self._reached == "sent" else self._reached
            self._reached = "ringing" if message.code > 100 else self._reached
        elif not self._cancelled and self._dialog is None:
            self._cancelled = True
            self._send(self._invitation.cancel(cseq=self._cseq, branch=self._branch))

    def _on_refusal(self, message: Message, received_ns: int) -> None:
        if self.outcome is not None:
            return
        self._code = message.code
        error = f"{message.code} {message.reason}".strip()
        if message.code in (401, 407) and not self._challenged:
            try:
                self._line.challenged(message)
            except BadChallenge as bad:
                error = f"{error}: {bad}"
            else:
                self._challenged = True
                self._code = None  # a challenge is no end of the attempt
                self._reached = "sent"
                self._invite()
                return
        self._decide("fail", received_ns, error=error)

    def _invite(self) -> Sent:
        self._cseq += 1
        self._branch = new_branch()
        self._authorization = self._line.authorization(method="INVITE", uri=self._invitation.uri)
        body = describe(self._audio.local, session=self._session)
        return self._send(
            self._invitation.invite(cseq=self._cseq, branch=self._branch, body=body, headers=self._authorization)
        )

    def _decide(self, kind: OpType, time_ns: int, *, error: str | None = None) -> None:
        if self.outcome is not None:
            return
        value: dict[str, Any] = {"n": self.n, "reached": self._reached}
        if self._code is not None:
            value["code"] = self._code
        refused_ns = time_ns if self._code is not None and self._answered_ns is None else None
        status_ns = self._rang_ns or self._answered_ns or refused_ns
        if status_ns is not None:
            value["srd_ms"] = ms(status_ns - self.sent_ns)
        if self._answered_ns is not None:
            value["setup_ms"] = ms(self._answered_ns - self.sent_ns)
            value["audio_ms"] = ms(time_ns - self._answered_ns)
            value["to_callee"], value["to_caller"] = len(self._heard["A"]), len(self._heard["B"])
        self.outcome = Outcome(kind=kind, time_ns=max(time_ns, self.sent_ns), error=error, value=value)
        self._audio.close()
        self._hang_up()
        self._decided(self, self.outcome)

    def _hang_up(self) -> None:
        if self._dialog is not None and not self._hung_up:
            self._hung_up = True
            self._bye_ns = self._send(self._dialog.request("BYE", cseq=self._cseq + 1)).before_ns

    def _on_bye_answered(self, message: Message, received_ns: int) -> None:
        if self._bye_ns is None or self._answered_ns is None or message.code < 200:
            return
        sdd_ms, sdt_ms = ms(received_ns - self._bye_ns), ms(self._bye_ns - self._answered_ns)
        self._bye_ns = None
        self._ended(self, Ended(time_ns=received_ns, code=message.code, sdd_ms=sdd_ms, sdt_ms=sdt_ms))
