"""Does a PBX answer at all? One SIP OPTIONS after the other until the first 2xx; for bring-up, not for measuring.

Runs in the client's network namespace: `python -m harness.cell.answer --to ADDRESS:PORT --timeout-s N`. Prints how long
it took in seconds; exit code 1 and what was last seen when no good answer came in time.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time

EVERY_S = 0.1


def options(address: str, *, port: int, local: tuple[str, int], number: int) -> bytes:
    """An OPTIONS request (RFC 3261, 11.1) with a branch and Call-ID of its own."""
    key = f"{os.getpid()}-{number}"
    lines = (
        f"OPTIONS sip:{address}:{port} SIP/2.0",
        f"Via: SIP/2.0/UDP {local[0]}:{local[1]};branch=z9hG4bK-up-{key};rport",
        f"From: <sip:up@{local[0]}>;tag={key}",
        f"To: <sip:{address}>",
        f"Call-ID: up-{key}@{local[0]}",
        f"CSeq: {number} OPTIONS",
        f"Contact: <sip:up@{local[0]}:{local[1]}>",
        "Max-Forwards: 70",
        "Content-Length: 0",
    )
    return "\r\n".join((*lines, "", "")).encode()


def wait_for_answer(address: str, port: int, *, timeout_s: float) -> tuple[bool, str]:
    """Ask until a 2xx comes or the time is over; (answered, status line or error last seen)."""
    seen = "nothing came back"
    deadline = time.monotonic() + timeout_s
    number = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        while time.monotonic() < deadline:
            number += 1
            ask_again = time.monotonic() + EVERY_S
            try:
                sock.send(options(address, port=port, local=sock.getsockname(), number=number))
            except OSError as error:
                seen = str(error)
            while (left := ask_again - time.monotonic()) > 0:
                sock.settimeout(left)
                try:
                    seen = sock.recv(65535).split(b"\r\n", 1)[0].decode(errors="replace")
                except TimeoutError:
                    break
                except OSError as error:
                    seen = str(error)
                    continue
                if seen.startswith("SIP/2.0 2"):
                    return True, seen
    return False, seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True)
    parser.add_argument("--timeout-s", type=float, required=True)
    args = parser.parse_args()
    address, _, port = args.to.partition(":")
    began = time.monotonic()
    answered, seen = wait_for_answer(address, int(port), timeout_s=args.timeout_s)
    print(f"{time.monotonic() - began:.3f}" if answered else seen)
    return 0 if answered else 1


if __name__ == "__main__":
    sys.exit(main())
