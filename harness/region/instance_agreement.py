"""Books and state agree on which instances there are, whenever the gateway before this one was killed.

RunInstances enters an instance in the books before it is written down. Whoever died in between has never answered, and
on AWS, too, such a call may or may not have been carried out: a launch was not (the books must not keep an instance's
address for it). What they were told is terminated (by a launch that failed, or by an older version, which told them
first) ends here as well: they can't take it back.
"""

from __future__ import annotations

from harness.region.calls import AwsError
from harness.region.ec2_instances import begin_terminate
from harness.region.plane import LOG, Plane
from harness.region.semantics.instances import USER_INITIATED


def restore(plane: Plane) -> None:
    """Called before anything is resumed, volumes too. Books that are away are told at the next start."""
    try:
        with plane.state.lock:
            for item in plane.books.call("DescribeInstances", {}).items("reservationSet", "instancesSet"):
                instance_id = item.findtext("instanceId") or ""
                ended = item.findtext("instanceState/name") == "terminated"
                record = plane.state.instances.get(instance_id)
                if record is None and not ended:
                    plane.books.call("TerminateInstances", {"InstanceId.1": instance_id})
                    plane.journal.record("launch_forgotten", instance_id=instance_id)
                elif record is not None and ended and not record.terminated and record.transition != "shutting-down":
                    begin_terminate(plane, record.because(USER_INITIATED), "shut_down")
    except AwsError as error:
        LOG.warning("the books of instances were not compared: %s", error)
