"""The OPTIONS clock: is the address answered by a PBX that says it serves? (RFC 3261 section 11)

    python -m harness.clients.options --to 203.0.113.1:5060 [--period-s 0.05] [--deadline-s 0.5] [--out FILE]

Open loop, single shot. By hand it prints the ops until Ctrl-C.
"""

from __future__ import annotations

import argparse
import secrets
from dataclasses import dataclass, field
from typing import Any

from harness.clients import shooting
from harness.clients.single_shot import Here
from harness.clients.sip.message import Message, request


@dataclass(frozen=True, kw_only=True)
class Options:
    """One OPTIONS; any final answer is its end."""

    domain: str
    call_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def request(self, here: Here) -> bytes:
        uri = f"sip:{self.domain}"
        headers = [
            here.via,
            ("Max-Forwards", "70"),
            ("From", f"<sip:probe@{self.domain}>;tag={self.call_id[:8]}"),
            ("To", f"<{uri}>"),
            ("Call-ID", self.call_id),
            ("CSeq", "1 OPTIONS"),
            here.contact("probe"),
            ("Accept", "application/sdp"),
        ]
        return request("OPTIONS", uri, headers)

    def again(self, reply: Message) -> bool:
        return False

    def told(self, ok: Message) -> dict[str, Any]:
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.clients.options", description=__doc__)
    shooting.add_arguments(parser, period_s=0.05, process="options")
    args = parser.parse_args()
    domain = args.domain or args.to[0]
    shooting.run(args, f="options", exchange=lambda: Options(domain=domain))


if __name__ == "__main__":
    main()
