"""A WebRTC client: one call from a real headless Chromium with JsSIP, held across the failover, then its fate.

    python -m harness.clients.browser --wss 203.0.113.1:10443 --domain pbx.test --user 1001 --callee 1002 \\
        --tone-hz 700 --expect-hz 750 --out FILE

Runs in a client machine's network namespace, Chromium beside it in a container of the client image. The ops are those
of every held call: `call`, `call_event`, `unaided`, `media_gap`, `media_second`, `media_leg`, all of side "caller".
`call` is ok once the browser was answered and has heard the other end's tone; what the other end hears is its to say.
Packets are told one by one by an encoded transform, with the time at which Chromium took them in; where Chromium has
none, silences are estimated from getStats every 100 ms: `resolution_ms` says which.

SIGTERM ends the holding: `unaided` is written, and then help is tried, each thing only where the one before brought no
audio: a re-INVITE (`reinvite_sent`), a re-INVITE with the offer of a new PeerConnection (`new_connection_sent`), BYE
(`bye_sent`) in any case, a new call (`new_call_helped`). That takes up to 35 s. The password comes from the environment
(PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from harness.clients import open_loop
from harness.clients.browser.held import HeldCall, Who
from harness.clients.new_call import PASSWORD
from harness.clients.recorder import Recorder
from harness.clients.story import hold


async def _hold(args: argparse.Namespace) -> None:
    stop = open_loop.stop_on_signals()
    recorder = Recorder(args.out, process=args.process, f="call")
    who = Who(
        wss=f"wss://{args.wss}/",
        domain=args.domain,
        user=args.user,
        password=os.environ.get(PASSWORD, ""),
        callee=args.callee,
        call=args.call or f"webrtc-{args.user}",
        tone_hz=args.tone_hz,
        expect_hz=args.expect_hz,
        expires_s=args.expires_s,
        reconnect_s=(args.reconnect_min_s, args.reconnect_max_s),
    )
    call = HeldCall(who, recorder)
    try:
        await call.begin()
        await hold(stop, call.check)
        await call.help()
    finally:
        await call.close()
        recorder.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.clients.browser", description=__doc__)
    parser.add_argument("--wss", required=True, metavar="IP:PORT")
    parser.add_argument("--domain", required=True)
    parser.add_argument("--user", required=True, help="extension that the browser registers")
    parser.add_argument("--callee", required=True, help="extension that it calls")
    parser.add_argument("--call", help="name of the call in the history (default: webrtc-USER)")
    parser.add_argument("--tone-hz", type=int, required=True, help="the tone that it sends")
    parser.add_argument("--expect-hz", type=int, required=True, help="the tone that is right to hear")
    parser.add_argument("--expires-s", type=int, default=120)
    parser.add_argument("--reconnect-min-s", type=int, default=2, help="JsSIP's own defaults: 2 and 30")
    parser.add_argument("--reconnect-max-s", type=int, default=30)
    parser.add_argument("--process", default="browser")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"))
    open_loop.main(_hold(parser.parse_args()))


if __name__ == "__main__":
    main()
