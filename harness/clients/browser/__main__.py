"""WebRTC clients: calls of a real headless Chromium with JsSIP, held across the failover, then asked for their fate.

    python -m harness.clients.browser --to 203.0.113.1:10443 --domain pbx.test --first 1000 --count 3 --out FILE

Runs in a client machine's network namespace, Chromium beside it in a container of the client image, a page for each
call. Extension `first + 2n` in the browser calls `first + 2n + 1`, a plain phone on UDP. The ops are those of every
held call, those of the phone's audio in `<FILE>_media.jsonl`.
The browser tells of each packet by an encoded transform, with the time at which Chromium took it in, and of the audio
by ear; where Chromium has no such transform, silences are estimated from getStats every 100 ms: `resolution_ms`.

SIGTERM ends the holding. Help is then tried in the order of all held calls; a browser can do more than a re-INVITE
(`reinvite_sent`): where no audio came of it, a re-INVITE with the offer of a new PeerConnection (`new_connection_sent`)
and, after BYE, a new call (`new_call_helped`). That takes up to 25 s. The password comes from the environment
(PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

from harness.clients import open_loop, real_calls
from harness.clients.browser.held import Browsers, HeldCall


def main() -> None:
    browsers = Browsers()
    args = real_calls.parser("harness.clients.browser", __doc__, own_kind="webrtc").parse_args()
    open_loop.main(real_calls.hold(args, lambda who, recorder: HeldCall(who, recorder, browsers)))


if __name__ == "__main__":
    main()
