"""A real browser as a client: headless Chromium with JsSIP, registered over secure WebSocket, audio over DTLS-SRTP.

`unmet` says why there is none here; `python -m harness.clients.browser` is the process that holds a call.
"""

from harness.clients.programs import unmet

__all__ = ["unmet"]
