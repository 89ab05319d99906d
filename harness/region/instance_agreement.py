"""Books and state agree on which instances there are, whenever the gateway before this one was killed.

RunInstances enters an instance in the books before it is written down. Whoever died in between has never answered, and
on AWS, too, such a call may not have been carried out: the books must not keep an instance's address for it.
"""

from __future__ import annotations

from harness.region.calls import AwsError
from harness.region.plane import LOG, Plane


def restore(plane: Plane) -> None:
    """Called before anything is resumed, volumes too. Books that are away are told at the next start."""
    try:
        with plane.state.lock:
            for item in plane.books.call("DescribeInstances", {}).items("reservationSet", "instancesSet"):
                instance_id = item.findtext("instanceId") or ""
                if instance_id not in plane.state.instances and item.findtext("instanceState/name") != "terminated":
                    plane.books.call("TerminateInstances", {"InstanceId.1": instance_id})
                    plane.journal.record("launch_forgotten", instance_id=instance_id)
    except AwsError as error:
        LOG.warning("the books of instances were not compared: %s", error)
