"""A caller who listens to the prompt that an extension plays from the volume: is it still what it was?

    python -m harness.clients.prompt --to IP:PORT --domain pbx.test --first 29931 --extension 900 --tone-hz 392 523 …

One call after the other on UDP, each until every tone of the prompt was heard in its order, wherever it began: op
`prompt`, ok when it was recognised; fail when the call was refused, or answered and not recognised within `HEAR_S`;
info when no answer came within `ANSWER_S`. The first time that it is recognised is an acknowledgement (`ack`): from
then on it must be there. The password comes from the environment (PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from harness.clients import arguments, open_loop
from harness.clients.kinds import kind
from harness.clients.media import FRAME_BYTES, Ports
from harness.clients.new_call import PASSWORD
from harness.clients.recorder import Recorder
from harness.clients.rtp.g711 import SAMPLES
from harness.clients.rtp.packet import FIRST_BYTE, HEADER, PCMU, unpack
from harness.clients.rtp.tone import SHARE, share
from harness.clients.sip.agent import Account, UserAgent
from harness.clients.sip.reply import Event
from harness.clients.sip.sdp import BadSdp, audio_address, describe
from harness.clients.sip.session import Session
from harness.clients.sip.transport import Address, UdpSocket, local_address_towards
from harness.clock import NS_PER_S, ms, now_ns
from harness.errors import InfrastructureError
from harness.history import OpType

REGISTER_S = 10.0
ANSWER_S = 2.0
HEAR_S = 4.0
"""Twice as long as the stand-in's prompt takes."""

PAUSE_S = 0.3
FRAME_S = 0.02
IN_A_ROW = 5
"""So many frames of a tone in a row (100 ms) are that tone."""

_SILENCE = b"\xff" * FRAME_BYTES


class Recogniser:
    """Hears the tones of a prompt that is played over and over; `recognised` once each came after the one before it."""

    def __init__(self, tones_hz: Sequence[int]) -> None:
        self._tones_hz = tones_hz
        self._now: int | None = None
        self._frames = 0
        self._last: int | None = None
        self._in_order = 0

    @property
    def recognised(self) -> bool:
        return self._in_order >= len(self._tones_hz)

    def take(self, packet: bytes) -> None:
        """An RTP packet that came in; what is none, or no G.711, is not heard."""
        fields = unpack(packet, len(packet))
        table = SAMPLES.get(fields[0]) if fields is not None else None
        if fields is None or table is None:
            return
        tone = self._tone([table[byte] for byte in packet[fields[4] : fields[5]]])
        self._frames = self._frames + 1 if tone == self._now else 1
        self._now = tone
        if tone is None or self._frames < IN_A_ROW or (tone == self._last and self._frames > IN_A_ROW):
            return
        follows = self._last is not None and tone == (self._last + 1) % len(self._tones_hz)
        self._in_order = self._in_order + 1 if follows else 1
        self._last = tone

    def _tone(self, samples: Sequence[int]) -> int | None:
        return next((n for n, hz in enumerate(self._tones_hz) if samples and share(samples, hz) >= SHARE), None)


class PromptCaller:
    """Needs a running event loop."""

    def __init__(
        self, agent: UserAgent, *, extension: str, tones_hz: Sequence[int], local_ip: str, recorder: Recorder
    ) -> None:
        self._agent = agent
        self._extension = extension
        self._tones_hz = tones_hz
        self._recorder = recorder
        self._ports = Ports(local_ip)
        self._n = 0
        self._acknowledged = False

    async def attempt(self) -> None:
        """One call, from its INVITE to the answer to its BYE."""
        self._n += 1
        value = {"n": self._n, "extension": self._extension}
        began_ns = now_ns()
        self._recorder.op("prompt", "invoke", began_ns, value)
        udp = self._ports.open()
        try:
            session = self._agent.call(self._extension, sdp=describe(udp.local, session="prompt"))
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await asyncio.shield(session.answered)
            if not session.answered.done():
                self._agent.spawn(session.cancel())
                self._recorder.op("prompt", "info", now_ns(), value, error=f"no answer within {ANSWER_S:g} s")
                return
            reply = session.answered.result()
            if not reply.ok:
                end: OpType = "info" if reply.code is None else "fail"
                self._recorder.op("prompt", end, now_ns(), value | {"code": reply.code}, error=str(reply))
                return
            await self._hear(session, udp, value, began_ns)
            await session.bye(timeout_s=ANSWER_S)
        finally:
            udp.close()

    async def _hear(self, session: Session, udp: UdpSocket, value: dict[str, Any], began_ns: int) -> None:
        problem = f"answered, but the prompt was not recognised within {HEAR_S:g} s"
        recognised = False
        try:
            recognised = await self._listen(udp, audio_address(session.remote_sdp))
        except BadSdp as error:
            problem = f"no usable audio: {error}"
        at_ns = now_ns()
        if not recognised:
            self._recorder.op("prompt", "fail", at_ns, value, error=problem)
            return
        self._recorder.op("prompt", "ok", at_ns, value | {"recognised_ms": ms(at_ns - began_ns)})
        if not self._acknowledged:
            self._acknowledged = True
            self._recorder.op("ack", "ok", at_ns, {"kind": "prompt", "id": self._extension})

    async def _listen(self, udp: UdpSocket, remote: Address) -> bool:
        """Until it is recognised, at most `HEAR_S`. Silence is sent all the while: a relay may wait for that."""
        heard = Recogniser(self._tones_hz)
        until_ns = now_ns() + round(HEAR_S * NS_PER_S)
        number = 0
        while now_ns() < until_ns:
            udp.send(HEADER.pack(FIRST_BYTE, PCMU, number & 0xFFFF, number * FRAME_BYTES, 1) + _SILENCE, remote)
            number += 1
            for datagram in udp.receive():
                heard.take(datagram.data)
            if heard.recognised:
                return True
            await asyncio.sleep(FRAME_S)
        return False


async def _call(args: argparse.Namespace) -> None:
    stop = open_loop.stop_on_signals()
    local_ip = args.local or local_address_towards(args.to)
    recorder = Recorder(args.out, process=args.process, f="prompt")

    def on_event(event: Event) -> None:
        if event.kind == "registered":
            recorder.note("registration", event.time_ns, {"user": str(args.first), **event.detail})

    agent = UserAgent(
        account=Account(user=str(args.first), password=os.environ.get(PASSWORD, ""), domain=args.domain),
        to=args.to,
        local_ip=local_ip,
        behaviour=kind(args.kind).behaviour,
        on_event=on_event,
    )
    caller = PromptCaller(
        agent, extension=str(args.extension), tones_hz=args.tone_hz, local_ip=local_ip, recorder=recorder
    )
    try:
        try:
            async with asyncio.timeout(REGISTER_S):
                await agent.start()
        except TimeoutError:
            raise InfrastructureError(f"the prompt's caller was not registered within {REGISTER_S:g} s") from None
        async for _ in open_loop.beats(stop, every_s=PAUSE_S):
            await caller.attempt()
    finally:
        await agent.stop()
        recorder.close()


def main() -> None:
    parser = arguments.parser("harness.clients.prompt", __doc__, kind="ip_phone", first="extension that calls")
    parser.add_argument("--extension", type=int, required=True, help="extension that plays the prompt")
    parser.add_argument("--tone-hz", type=int, nargs="+", required=True, help="what it plays, tone after tone")
    open_loop.main(_call(parser.parse_args()))


if __name__ == "__main__":
    main()
