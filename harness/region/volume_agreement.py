"""Books, state and data plane of volumes agree again, whenever the gateway before this one was killed.

A call changes them one after the other. A new volume: the books give the id and may refuse, the state remembers, the
data plane makes it true; an attachment: the books, the state, and a worker. Whoever died in between has never answered;
on AWS, too, such a call may or may not have been carried out.
"""

from __future__ import annotations

from contextlib import suppress

from harness.region.calls import AwsError, Document
from harness.region.plane import LOG, Plane
from harness.region.state import Volume


def restore(plane: Plane) -> None:
    """Called before anything is resumed. What books that are away would be told is left to the next start."""
    try:
        with plane.state.lock:
            _make_entered(plane)
            books = _books(plane.books.call("DescribeVolumes", {}))
            _adopt(plane, books)
            _drop_unmade(plane, books)
            _correct_books(plane, books)
    except AwsError as error:
        LOG.warning("the books of volumes were not compared: %s", error)


def _books(document: Document) -> dict[str, tuple[Volume, list[str]]]:
    """The volumes of the books: as they would be written down, and the instances they are attached to."""
    found = {}
    for item in document.items("volumeSet"):
        iops, throughput = item.findtext("iops"), item.findtext("throughput")
        volume = Volume(
            volume_id=item.findtext("volumeId") or "",
            size_gib=int(item.findtext("size") or 1),
            zone=item.findtext("availabilityZone") or "",
            volume_type=item.findtext("volumeType") or "gp2",
            iops=int(iops) if iops else None,
            throughput=int(throughput) if throughput else None,
            multi_attach=item.findtext("multiAttachEnabled") == "true",
            creating=True,
        )
        found[volume.volume_id] = (volume, [e.text or "" for e in item.findall("attachmentSet/item/instanceId")])
    return found


def _make_entered(plane: Plane) -> None:
    """CreateVolume, or RunInstances, had written the volume down, and then nobody made it."""
    there = plane.volumes.list()
    for volume_id, volume in plane.state.volumes.items():
        if volume.creating and volume_id not in there:
            try:
                plane.volumes.create(volume_id, size_gib=volume.size_gib, shared=volume.multi_attach)
            except Exception as error:  # one disk that can't be made keeps no gateway from starting
                LOG.exception("%s was not made", volume_id)
                plane.journal.record("operation_failed", operation="make_volume", error=str(error))
            else:
                plane.journal.record("volume_made_late", volume_id=volume_id)


def _adopt(plane: Plane, books: dict[str, tuple[Volume, list[str]]]) -> None:
    """A volume was made, and nobody remembers it (an older version's order). Data that nobody knows is left alone."""
    for volume_id in plane.volumes.list():
        if volume_id not in plane.state.volumes:
            if volume_id in books:
                plane.state.put(books[volume_id][0])
            plane.journal.record("volume_found", volume_id=volume_id, in_books=volume_id in books)


def _drop_unmade(plane: Plane, books: dict[str, tuple[Volume, list[str]]]) -> None:
    """CreateVolume had got as far as the books, or RunInstances with a data volume.

    (Root volumes are in the books alone too, but attached to an instance that is known, and they don't let go of one.)
    """
    there = plane.volumes.list()
    for volume_id, (_, instances) in books.items():
        known = any(instance_id in plane.state.instances for instance_id in instances)
        if volume_id in there or volume_id in plane.state.volumes or known:
            continue
        with suppress(AwsError):
            for instance_id in instances:
                plane.books.call("DetachVolume", {"VolumeId": volume_id, "InstanceId": instance_id})
            plane.books.call("DeleteVolume", {"VolumeId": volume_id})


def _correct_books(plane: Plane, books: dict[str, tuple[Volume, list[str]]]) -> None:
    """AttachVolume had got as far as the books. (What is detaching is told to them by whoever finishes it.)"""
    for volume_id, volume in plane.state.volumes.items():
        for instance_id in books[volume_id][1] if volume_id in books else ():
            if volume.place_at(instance_id) is None:
                plane.books.call("DetachVolume", {"VolumeId": volume_id, "InstanceId": instance_id})
