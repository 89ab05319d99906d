"""One call's decision, message by message: what is sent, how far it got, and that it is decided exactly once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harness import history
from harness.clients.call import Call, Ended, Line, Outcome
from harness.clients.media import Ports
from harness.clients.new_call import NewCallProbe
from harness.clients.open_loop import Turn
from harness.clients.recorder import Recorder
from harness.clients.sip.dialog import Invitation
from harness.clients.sip.digest import Credentials
from harness.clients.sip.message import Message, parse, response
from harness.clients.sip.sdp import describe
from harness.clients.sip.transport import Sent, UdpSocket
from harness.sip_figures import never_left

MS = 1_000_000
LOCAL = ("198.18.1.11", 5070)
ROUTES = [("Record-Route", "<sip:203.0.113.2;lr>"), ("Record-Route", "<sip:203.0.113.1;lr>")]
ANSWER = describe(("203.0.113.1", 35000), session="x")


class FakeAudio:
    """Stands for the socket: remembers where it was told to send, and that it was closed."""

    def __init__(self) -> None:
        self.local = ("198.18.1.11", 40000)
        self.remote: Any = None
        self.closed = 0

    def start(self, remote: Any) -> None:
        self.remote = remote

    def close(self) -> None:
        self.closed += 1


class Rig:
    """A call of number 7, sent at 0 ms with a deadline of 1000 ms."""

    def __init__(self, *, line: Line | None = None) -> None:
        self.wire: list[Message] = []
        self.outcomes: list[Outcome] = []
        self.late: list[int] = []
        self.ends: list[Ended] = []
        self.audio = FakeAudio()
        self.line = line or Line(credentials=Credentials(user="1998", password="p"))
        invitation = Invitation(
            local=LOCAL,
            uri="sip:1999@pbx.test",
            from_="<sip:1998@pbx.test>;tag=f",
            to="<sip:1999@pbx.test>",
            call_id="c-7@here",
            contact="<sip:1998@198.18.1.11:5070>",
        )
        self.call = Call(
            n=7,
            session="c-7",
            invitation=invitation,
            line=self.line,
            send=self._send,
            audio=self.audio,  # type: ignore[arg-type]
            deadline_s=1.0,
            decided=lambda call, outcome: self.outcomes.append(outcome),
            late=lambda call, at_ns: self.late.append(at_ns),
            ended=lambda call, end: self.ends.append(end),
        )
        self.call.start()

    def _send(self, data: bytes) -> Sent:
        self.wire.append(parse(data))
        return Sent(before_ns=0, after_ns=1000)

    @property
    def methods(self) -> list[str]:
        return [m.method for m in self.wire]

    def invite(self) -> Message:
        return [m for m in self.wire if m.method == "INVITE"][-1]

    def answer(self, code: int, at_ms: float, *, body: bytes = b"", headers: Any = ()) -> None:
        contact = [("Contact", "<sip:1999@198.18.1.11:5080>")] if 200 <= code < 300 else []
        data = response(self.invite(), code, "Text", to_tag="t", headers=[*contact, *headers], body=body)
        self.call.on_response(parse(data), round(at_ms * MS))

    def hear(self, *frames: tuple[str, float]) -> None:
        for role, at_ms in frames:
            self.call.on_audio(role, round(at_ms * MS))


def answered() -> Rig:
    rig = Rig()
    rig.answer(100, 2)
    rig.answer(180, 8)
    rig.answer(200, 10, body=ANSWER, headers=ROUTES)
    return rig


def test_two_frames_each_way_are_a_call() -> None:
    rig = answered()
    rig.hear(("B", 12), ("A", 13), ("B", 32), ("A", 33), ("A", 53))
    assert [(o.kind, o.time_ns) for o in rig.outcomes] == [("ok", 33 * MS)]
    value = rig.outcomes[0].value
    assert (value["n"], value["reached"], value["setup_ms"], value["audio_ms"]) == (7, "audio", 10.0, 23.0)
    assert rig.audio.remote == ("203.0.113.1", 35000)
    assert rig.methods == ["INVITE", "ACK", "BYE"]
    assert rig.audio.closed == 1


def test_the_delays_of_rfc_6076_are_measured() -> None:
    rig = answered()
    rig.hear(("B", 12), ("A", 13), ("B", 32), ("A", 33))
    assert rig.outcomes[0].value["srd_ms"] == 8.0
    bye = rig.wire[-1]
    rig.call.on_response(parse(response(bye, 200, "OK", to_tag="t")), 40 * MS)
    rig.call.on_response(parse(response(bye, 200, "OK", to_tag="t")), 41 * MS)
    assert [(end.code, end.sdd_ms) for end in rig.ends] == [(200, 40.0)]  # the rig's clock stands at 0 when it sends


def test_requests_in_the_dialog_follow_its_route() -> None:
    rig = answered()
    rig.hear(("B", 12), ("B", 13), ("A", 12), ("A", 13))
    ack, bye = rig.wire[1:]
    assert ack.all("route") == bye.all("route") == ["<sip:203.0.113.1;lr>", "<sip:203.0.113.2;lr>"]
    assert ack.uri == bye.uri == "sip:1999@198.18.1.11:5080"
    assert (ack.cseq, bye.cseq) == ((1, "ACK"), (2, "BYE"))
    assert ack.to_tag == bye.to_tag == "t"
    assert len({m.branch for m in rig.wire}) == 3


def test_audio_one_way_is_not_a_call() -> None:
    rig = answered()
    rig.hear(("A", 12), ("A", 32), ("A", 52), ("B", 60))
    rig.call.expire()
    assert [(o.kind, o.error) for o in rig.outcomes] == [("info", "audio only to the callee within 1 s")]
    assert rig.outcomes[0].value["reached"] == "one_way"
    assert rig.outcomes[0].time_ns == 1000 * MS
    assert rig.methods[-1] == "BYE"


def test_audio_after_the_deadline_does_not_count() -> None:
    rig = answered()
    rig.hear(("A", 12), ("A", 32), ("B", 990), ("B", 1001))
    rig.call.expire()
    assert rig.outcomes[0].kind == "info"


@pytest.mark.parametrize(
    ("codes", "reached", "error"),
    [
        ((), "sent", "no answer"),
        ((100,), "trying", "only 100 Trying"),
        ((100, 183), "ringing", "rang, was not answered"),
    ],
)
def test_a_deadline_says_how_far_it_got(codes: tuple[int, ...], reached: str, error: str) -> None:
    rig = Rig()
    for code in codes:
        rig.answer(code, 5)
    rig.call.expire()
    assert [(o.kind, o.value["reached"], o.error) for o in rig.outcomes] == [("info", reached, f"{error} within 1 s")]
    assert rig.methods == ["INVITE"], "nothing was repeated, nothing hung up that was never there"


@pytest.mark.parametrize("code", [404, 480, 486, 503, 603])
def test_a_refusal_is_a_failure_and_acknowledged_in_its_transaction(code: int) -> None:
    rig = Rig()
    rig.answer(code, 9)
    assert [(o.kind, o.value["code"], o.error) for o in rig.outcomes] == [("fail", code, f"{code} Text")]
    invite, ack = rig.wire
    assert (ack.method, ack.branch, ack.to_tag) == ("ACK", invite.branch, "t")
    assert rig.outcomes[0].value["srd_ms"] == 9.0  # of a call that failed (RFC 6076 4.3.2)


CHALLENGE = [("Proxy-Authenticate", 'Digest realm="pbx.test", nonce="n1"')]


def test_a_challenge_is_answered_once_and_remembered() -> None:
    rig = Rig()
    rig.answer(407, 3, headers=CHALLENGE)
    assert rig.methods == ["INVITE", "ACK", "INVITE"]
    assert 'nonce="n1"' in (rig.invite().get("proxy-authorization") or "")
    assert rig.invite().cseq == (2, "INVITE")
    rig.answer(200, 9, body=ANSWER)
    assert rig.wire[-1].cseq == (2, "ACK")
    assert rig.wire[-1].get("proxy-authorization"), "the ACK of a 2xx carries the INVITE's credentials"
    assert 'nonce="n1"' in (Rig(line=rig.line).invite().get("proxy-authorization") or "")


def test_a_second_challenge_is_a_failure() -> None:
    rig = Rig()
    rig.answer(407, 3, headers=CHALLENGE)
    rig.answer(407, 6, headers=CHALLENGE)
    assert [(o.kind, o.value["code"]) for o in rig.outcomes] == [("fail", 407)]


def test_a_late_answer_is_acknowledged_hung_up_and_told() -> None:
    rig = Rig()
    rig.call.expire()
    rig.answer(200, 1500, body=ANSWER)
    assert rig.methods == ["INVITE", "ACK", "BYE"]
    assert rig.late == [1500 * MS]
    assert len(rig.outcomes) == 1


def test_an_answer_that_the_kernel_had_after_the_deadline_comes_too_late() -> None:
    rig = Rig()
    rig.answer(200, 1001, body=ANSWER)
    assert [o.kind for o in rig.outcomes] == ["info"]
    assert rig.late == [1001 * MS]


def test_late_ringing_is_cancelled_once() -> None:
    rig = Rig()
    rig.call.expire()
    rig.answer(100, 1200)
    rig.answer(180, 1300)
    assert rig.methods == ["INVITE", "CANCEL"]
    assert (rig.wire[1].branch, rig.wire[1].cseq) == (rig.wire[0].branch, (1, "CANCEL"))


def test_a_repeated_answer_is_acknowledged_again() -> None:
    rig = answered()
    rig.answer(200, 510, body=ANSWER, headers=ROUTES)
    assert rig.methods == ["INVITE", "ACK", "ACK"]


def test_a_hang_up_by_the_pbx_fails_the_call_and_is_not_answered_with_bye() -> None:
    rig = answered()
    rig.call.on_hang_up(20 * MS)
    assert [(o.kind, o.error) for o in rig.outcomes] == [("fail", "ended by the PBX")]
    assert "BYE" not in rig.methods


def test_an_answer_without_audio_fails() -> None:
    rig = Rig()
    rig.answer(200, 10, body=b"v=0\r\n")
    assert rig.outcomes[0].kind == "fail"
    assert rig.methods == ["INVITE", "ACK", "BYE"]


def test_an_answer_to_something_else_is_ignored() -> None:
    rig = Rig()
    stray = response(rig.invite(), 486, "Busy", to_tag="t").replace(b"z9hG4bK", b"z9hG4bX")
    rig.call.on_response(parse(stray), MS)
    assert rig.outcomes == []


def test_a_decided_call_lingers_and_is_then_forgotten() -> None:
    rig = Rig()
    assert not rig.call.over(10_000 * MS, linger_ns=5000 * MS)
    rig.call.expire()
    assert not rig.call.over(5_000 * MS, linger_ns=5000 * MS)
    assert rig.call.over(6_001 * MS, linger_ns=5000 * MS)


def test_an_attempt_without_a_port_was_never_sent_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(self: Ports) -> UdpSocket:
        raise OSError("all are taken")

    async def attempt(recorder: Recorder) -> None:
        callee_udp = UdpSocket(("127.0.0.1", 0))
        probe = NewCallProbe(
            road=lambda probe: None,  # type: ignore[arg-type, return-value]
            domain="pbx.test",
            caller=Credentials(user="1998", password="p"),
            callee="1999",
            deadline_s=1.0,
            recorder=recorder,
            local_ip="127.0.0.1",
            callee_udp=callee_udp,
        )
        probe.send(Turn(n=3, slip_ms=0.0, skipped=0, slipped=False))
        asyncio.get_running_loop().remove_reader(callee_udp.fileno())
        callee_udp.close()

    monkeypatch.setattr(Ports, "open", taken)
    recorder = Recorder(tmp_path / "ops.jsonl", process="new_call", f="new_call")
    asyncio.run(attempt(recorder))
    recorder.close()
    asked, end = history.read(tmp_path / "ops.jsonl")
    assert (asked.type, end.type, end.error) == ("invoke", "fail", "no free port: all are taken")
    assert never_left(end)
