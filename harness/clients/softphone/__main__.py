"""Desktop clients: calls of real baresips, held across the failover, then asked for their fate.

    python -m harness.clients.softphone --to 203.0.113.1:5061 --domain pbx.test --first 1400 --count 2 --out FILE

Runs in a client machine's network namespace, each baresip beside it in a container of the client image. Extension
`first + 2n` is baresip's and calls `first + 2n + 1`, a plain phone on UDP. The ops are those of every held call, those
of the phone's audio in `<FILE>_media.jsonl`.
baresip's audio is judged at the network's edge (`tap.py`): packets as the kernel saw them, the phone's tone in their
payload. baresip does not say when a TLS or TCP connection fails or comes back: `registered` and `register_failed` do.

SIGTERM ends the holding. Help is then tried in the order of all held calls; baresip's re-INVITEs are hold and resume
(`reinvite_sent` has their codes, `reinvite_helped` whether there is audio then). That takes up to 20 s. The password
comes from the environment (PBX_CHAOS_SIP_PASSWORD).
"""

from __future__ import annotations

from harness.clients import open_loop, real_calls
from harness.clients.softphone.held import HeldCall


def main() -> None:
    parser = real_calls.parser("harness.clients.softphone", __doc__, own_kind="desktop")
    parser.add_argument("--transport", choices=("udp", "tcp", "tls"), help="default: its kind's")
    open_loop.main(real_calls.hold(parser.parse_args(), HeldCall))


if __name__ == "__main__":
    main()
