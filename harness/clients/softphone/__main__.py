"""A desktop client: one call of a real baresip, held across the failover, then its fate.

    python -m harness.clients.softphone --to 203.0.113.1:5061 --transport tls --domain pbx.test --user 1003 \\
        --callee 1004 --call desktop-1 --tone-hz 500 --expect-hz 550 --out FILE

Runs in a client machine's network namespace, baresip beside it in a container of the client image. Without `--callee`
it registers, is called, and answers: then its ops are of side "callee" and there is no `call` op.
Audio is judged at the network's edge (`tap.py`): packets as the kernel saw them, the other end's tone in their payload.
baresip does not say when a TLS or TCP connection fails or comes back: only `registered` and `register_failed` do.

SIGTERM ends the holding: `unaided` is written; a caller then holds and resumes the call, as a person would who hears
nothing (two re-INVITEs; `reinvite_sent` has the codes, `reinvite_helped` whether there is audio then), and hangs up.
That takes up to 25 s. The password comes from the environment (PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from harness.clients import open_loop
from harness.clients.new_call import PASSWORD
from harness.clients.recorder import Recorder
from harness.clients.rtp.tone import Tone
from harness.clients.shooting import address
from harness.clients.softphone.baresip import Account
from harness.clients.softphone.held import HeldCall
from harness.clients.story import hold


async def _hold(args: argparse.Namespace) -> None:
    stop = open_loop.stop_on_signals()
    recorder = Recorder(args.out, process=args.process, f="call")
    account = Account(
        user=args.user,
        password=os.environ.get(PASSWORD, ""),
        domain=args.domain,
        transport=args.transport,
        to=args.to,
        register_s=args.expires_s,
    )
    tone = Tone(hz=args.tone_hz, other_hz=args.expect_hz)
    call = HeldCall(account, recorder, call=args.call or f"desktop-{args.user}", callee=args.callee, tone=tone)
    try:
        await call.begin()
        await hold(stop, call.check)
        await call.help()
    finally:
        await call.close()
        recorder.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.clients.softphone", description=__doc__)
    parser.add_argument("--to", type=address, required=True, metavar="IP:PORT")
    parser.add_argument("--transport", choices=("udp", "tcp", "tls"), default="tls")
    parser.add_argument("--domain", required=True)
    parser.add_argument("--user", required=True, help="extension that it registers")
    parser.add_argument("--callee", help="extension that it calls (default: it waits to be called)")
    parser.add_argument("--call", help="name of the call in the history (default: desktop-USER)")
    parser.add_argument("--tone-hz", type=int, required=True, help="the tone that it sends")
    parser.add_argument("--expect-hz", type=int, required=True, help="the tone that is right to hear")
    parser.add_argument("--expires-s", type=int, default=600)
    parser.add_argument("--process", default="softphone")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"))
    open_loop.main(_hold(parser.parse_args()))


if __name__ == "__main__":
    main()
