"""CreateVolume: how a volume comes to be, once, also when the gateway is killed meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

from harness.region.calls import Call, Document, answer
from harness.region.ec2_subnets import check_zone
from harness.region.ec2_volumes import finish_create, finish_delete, show_volume
from harness.region.idempotency import Made, marks
from harness.region.plane import Action, Found, Plane, refuse_dry_run
from harness.region.semantics import volumes as semantics
from harness.region.semantics.volume_changes import check_size
from harness.region.state import Volume


def create_volume(plane: Plane, call: Call) -> bytes:
    """CreateVolume: an entry in the books and a block device that keeps what is flushed to it; `creating` at first."""
    refuse_dry_run(call)
    with plane.state.lock:
        document, volume = enter_volume(plane, call)
        try:
            plane.state.put(volume)
            make_volume(plane, volume)
        except Exception:
            finish_delete(plane, volume)
            raise
    plane.background(finish_create, plane, volume.volume_id)
    show_volume(document.root, volume)
    return document.body(call)


def enter_volume(plane: Plane, call: Call) -> tuple[Document, Volume]:
    """Under the lock: the volume of this CreateVolume call in the books, and their answer.

    It is to be written down before there is a disk: whoever dies in between has a volume that the next gateway makes,
    under its client token.
    """
    volume_type, shared = call.get("VolumeType") or "gp2", call.flag("MultiAttachEnabled")
    semantics.decide_create(volume_type=volume_type, multi_attach=shared, snapshot_id=call.get("SnapshotId"))
    size_gib = check_size(call.require("Size"), volume_type)
    zone = call.require("AvailabilityZone")
    check_zone(plane, zone)
    token, digest = marks(call)
    untold = ("ClientToken",) if shared else ("ClientToken", "MultiAttachEnabled")
    document = plane.books.call("CreateVolume", {k: v for k, v in call.params.items() if k not in untold})
    iops, throughput = document.root.findtext("iops"), document.root.findtext("throughput")
    volume = Volume(
        volume_id=document.root.findtext("volumeId") or "",
        size_gib=size_gib,
        zone=zone,
        volume_type=volume_type,
        iops=int(iops) if iops else None,
        throughput=int(throughput) if throughput else None,
        multi_attach=shared,
        creating=True,
        client_token=token,
        token_digest=digest,
    )
    return document, volume


def make_volume(plane: Plane, volume: Volume) -> None:
    """The disk of a volume that is written down."""
    plane.volumes.create(volume.volume_id, size_gib=volume.size_gib, shared=volume.multi_attach)


def created_before(plane: Plane, call: Call, token: str) -> Made | None:
    """The volume that was made under this client token, as it is now."""
    with plane.state.lock:
        volume = next((v for v in plane.state.volumes.values() if v.client_token == token), None)
        if volume is None:
            return None
        document = Document(answer(call, {}))
        for item in plane.books.call("DescribeVolumes", {"VolumeId.1": volume.volume_id}).items("volumeSet"):
            document.root.extend(item)
    show_volume(document.root, volume)
    return Made(digest=volume.token_digest, body=document.body(call))


ACTIONS: Mapping[str, Action] = {"CreateVolume": create_volume}

MADE: Mapping[str, Found] = {"CreateVolume": created_before}
