"""EC2's rules about volumes as tables: state in, decision or error out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.region.calls import AwsError
from harness.region.semantics import volume_changes, volumes
from harness.region.semantics.volume_changes import DAY_S, MOST_PER_DAY, Modification, Shape, Wish
from harness.region.semantics.volumes import MULTI_ATTACH_LIMIT, Attachment

ONE, TWO = "i-00000000000000001", "i-00000000000000002"
V = "vol-00000000000000001"
NOW_S = 1_800_000_000.0
SHAPE = Shape(size_gib=10, volume_type="io2", iops=1000)


def place(state: Any = "attached", *, at: str = ONE, force: bool = False) -> Attachment:
    return Attachment(instance_id=at, device="/dev/sdf", state=state, since="2026-01-01T00:00:00.000Z", force=force)


def code_of(function: Any, *arguments: Any, **options: Any) -> str | None:
    """The AWS error code, or None when there is none."""
    try:
        function(*arguments, **options)
    except AwsError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("volume_id", "code"),
    [
        (V, None),
        ("vol-0123abcd", "InvalidVolume.NotFound"),
        ("vol-0", "InvalidVolumeID.Malformed"),
        ("vol-0000000000000000g", "InvalidVolumeID.Malformed"),
        ("snap-00000000000000001", "InvalidParameterValue"),
        ("", "InvalidParameterValue"),
    ],
)
def test_volume_id(volume_id: str, code: str | None) -> None:
    assert code_of(volumes.check_volume_id, volume_id, {V}) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"multi_attach": True, "volume_type": "io2"}, None),
        ({"multi_attach": True, "volume_type": "io1"}, None),
        ({"multi_attach": True}, "InvalidParameterCombination"),
        ({"snapshot_id": "snap-1"}, "UnsupportedOperation"),
    ],
)
def test_create(changes: dict[str, Any], code: str | None) -> None:
    options = {"volume_type": "gp3", "multi_attach": False, "snapshot_id": None, **changes}
    assert code_of(volumes.decide_create, **options) == code


FULL = [place(at=f"i-{number:017x}") for number in range(100, 100 + MULTI_ATTACH_LIMIT)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"instance": "stopped"}, None),
        ({"instance": "pending"}, "IncorrectState"),
        ({"instance": "stopping"}, "IncorrectState"),
        ({"instance": "terminated"}, "IncorrectState"),
        ({"creating": True}, "IncorrectState"),
        ({"same_zone": False}, "InvalidVolume.ZoneMismatch"),
        ({"attachments": [place()]}, "VolumeInUse"),
        ({"attachments": [place("attaching")]}, "VolumeInUse"),
        ({"attachments": [place("detaching")], "instance_id": ONE}, "VolumeInUse"),
        ({"attachments": [place("busy")]}, "VolumeInUse"),
        ({"attachments": [place()], "multi_attach": True}, None),
        ({"attachments": [place()], "multi_attach": True, "instance_id": ONE}, "VolumeInUse"),
        ({"attachments": FULL[1:], "multi_attach": True}, None),
        ({"attachments": FULL, "multi_attach": True}, "VolumeInUse"),
        ({"devices_in_use": ["/dev/sdf"]}, "InvalidParameterValue"),
        ({"device": "/dev/xvdf"}, None),
        ({"device": "/dev/xvdba"}, None),
        ({"device": "/dev/sdp15"}, None),
        ({"device": "/dev/sda1"}, "InvalidParameterValue"),
        ({"device": "/dev/xvda"}, "InvalidParameterValue"),
        ({"device": "/dev/nvme1n1"}, "InvalidParameterValue"),
        ({"device": "sdf"}, "InvalidParameterValue"),
        ({"device": "/dev/sdf\n"}, "InvalidParameterValue"),
    ],
)
def test_attach(changes: dict[str, Any], code: str | None) -> None:
    options = {
        "attachments": [],
        "instance_id": TWO,
        "instance": "running",
        "device": "/dev/sdf",
        "same_zone": True,
        "devices_in_use": [],
        **changes,
    }
    assert code_of(volumes.decide_attach, V, **options) == code


@pytest.mark.parametrize(
    ("attachments", "changes", "code"),
    [
        ([place()], {}, None),
        ([place()], {"instance_id": ONE, "device": "/dev/sdf"}, None),
        ([place()], {"instance_id": TWO}, "InvalidAttachment.NotFound"),
        ([place()], {"device": "/dev/sdg"}, "InvalidAttachment.NotFound"),
        ([], {}, "IncorrectState"),
        ([place("attaching")], {}, None),
        ([place("detaching")], {}, None),
        ([place(), place(at=TWO)], {"multi_attach": True}, "MissingParameter"),
        ([place(), place(at=TWO)], {"multi_attach": True, "instance_id": TWO}, None),
    ],
)
def test_detach(attachments: list[Attachment], changes: dict[str, Any], code: str | None) -> None:
    options = {"instance_id": None, "device": None, "force": False, **changes}
    assert code_of(volumes.decide_detach, V, attachments, **options) == code


@pytest.mark.parametrize(
    ("before", "after"),
    [("attached", "detaching"), ("attaching", "detaching"), ("detaching", "detaching"), ("busy", "busy")],
)
def test_what_is_busy_stays_busy(before: str, after: str) -> None:
    assert volumes.decide_detach(V, [place(before)], instance_id=None, device=None, force=False).state == after


def test_force_stays_once_it_was_said() -> None:
    after = volumes.decide_detach(V, [place("detaching", force=True)], instance_id=None, device=None, force=False)
    assert (after.state, after.force) == ("detaching", True)


def test_of_several_places_the_one_that_was_named_is_left() -> None:
    both = [place(), place(at=TWO)]
    after = volumes.decide_detach(V, both, instance_id=TWO, device=None, force=False, multi_attach=True)
    assert after.instance_id == TWO


def test_only_a_free_volume_is_deleted() -> None:
    assert code_of(volumes.decide_delete, V, []) is None
    assert code_of(volumes.decide_delete, V, [place("detaching")]) == "VolumeInUse"
    assert code_of(volumes.decide_delete, V, [], creating=True) == "IncorrectState"


def changing(state: Any) -> Modification:
    return Modification(state=state, original=SHAPE, target=SHAPE, started="2026-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    ("wish", "target"),
    [
        (Wish(size="20"), replace(SHAPE, size_gib=20)),
        (Wish(size="10"), SHAPE),
        (Wish(size="9"), "InvalidParameterValue"),
        (Wish(size="0"), "InvalidParameterValue"),
        (Wish(size="-1"), "InvalidParameterValue"),
        (Wish(size="many"), "InvalidParameterValue"),
        (Wish(size="65536"), replace(SHAPE, size_gib=65536)),
        (Wish(size="65537"), "InvalidParameterValue"),
        (Wish(size="20000", volume_type="io1"), "InvalidParameterValue"),
        (Wish(iops="2000"), replace(SHAPE, iops=2000)),
        (Wish(iops="fast"), "InvalidParameterValue"),
        (Wish(throughput="250"), "InvalidParameterCombination"),
        (Wish(volume_type="gp3", throughput="250"), replace(SHAPE, volume_type="gp3", throughput=250)),
        (Wish(volume_type="gp2"), Shape(size_gib=10, volume_type="gp2")),
        (Wish(volume_type="gp2", iops="3000"), "InvalidParameterCombination"),
        (Wish(volume_type="floppy"), "InvalidParameterValue"),
        (Wish(), "InvalidParameterValue"),
    ],
)
def test_modify(wish: Wish, target: Shape | str) -> None:
    try:
        decided: Shape | str = volume_changes.decide_modify(
            V, SHAPE, wish, going_on=None, creating=False, modified_s=[], now_s=NOW_S
        )
    except AwsError as error:
        decided = error.code
    assert decided == target


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"going_on": changing("completed")}, None),
        ({"going_on": changing("failed")}, None),
        ({"going_on": changing("modifying")}, "IncorrectModificationState"),
        ({"going_on": changing("optimizing")}, "IncorrectModificationState"),
        ({"creating": True}, "IncorrectState"),
        ({"modified_s": [NOW_S - 60] * (MOST_PER_DAY - 1)}, None),
        ({"modified_s": [NOW_S - 60] * MOST_PER_DAY}, "VolumeModificationRateExceeded"),
        ({"modified_s": [NOW_S - DAY_S + 1] * MOST_PER_DAY}, "VolumeModificationRateExceeded"),
        ({"modified_s": [NOW_S - DAY_S, *[NOW_S - 60] * (MOST_PER_DAY - 1)]}, None),
    ],
)
def test_when_a_volume_can_be_modified(changes: dict[str, Any], code: str | None) -> None:
    options = {"going_on": None, "creating": False, "modified_s": [], "now_s": NOW_S, **changes}
    assert code_of(volume_changes.decide_modify, V, SHAPE, Wish(size="20"), **options) == code


@pytest.mark.parametrize(
    ("stalled_s", "volume_type", "seen"),
    [
        (0.0, "io2", ("ok", "passed", "normal")),
        (0.0, "gp2", ("ok", "passed", "not-applicable")),
        (59.0, "io2", ("ok", "passed", "normal")),
        (61.0, "io2", ("impaired", "passed", "stalled")),
        (None, "io2", ("insufficient-data",) * 3),
    ],
)
def test_status(stalled_s: float | None, volume_type: str, seen: tuple[str, str, str]) -> None:
    status = volume_changes.volume_status(stalled_s, volume_type=volume_type)
    assert (status.status, status.io_enabled, status.io_performance) == seen
