"""A real softphone as a client: Debian's baresip, driven over ctrl_tcp; its audio is judged at the network's edge.

`unmet` says why there is none here; `python -m harness.clients.softphone` is the process that holds a call.
"""

from harness.clients.programs import unmet

__all__ = ["unmet"]
