"""Injuries of a volume as the harness sets them: errors, hang, latency, a flush that lies (harness/region/disk.py).

The control call {"disk": {"volume_id": …, "switches": {…}}} switches them, its answer is what the volume's server then
says it does; no switches heal. A server that is replaced forgets them.
"""

from __future__ import annotations

from typing import Any

from harness.region.disk import Switches
from harness.region.plane import Plane


def control(plane: Plane, wanted: Any) -> dict[str, Any]:
    """ValueError says what is wrong with it."""
    row = wanted if isinstance(wanted, dict) else {}
    volume_id, switches = row.get("volume_id"), row.get("switches")
    if not isinstance(volume_id, str) or not isinstance(switches, dict):
        raise ValueError('disk: {"volume_id": id, "switches": {name: value}} is expected')
    if volume_id not in plane.volumes.list():
        raise ValueError(f"disk: there is no volume {volume_id!r}")
    try:
        chosen = Switches(**switches)
    except TypeError as error:
        raise ValueError(f"disk: {str(error).removeprefix('Switches.__init__() ')}") from None
    plane.volumes.switch(volume_id, chosen)
    return plane.volumes.status(volume_id)


CONTROLS = {"disk": control}
