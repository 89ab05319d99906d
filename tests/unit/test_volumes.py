"""What happens to a volume's loop device when its machine or its server is gone; no device is touched here."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import topology as topologies
from harness.region import loops
from harness.region.journal import Journal
from harness.region.volumes import Attachment, Volumes, _State
from harness.topology import Topology


@pytest.mark.parametrize("file", ["the volume's own", "/"])
def test_a_loop_device_is_freed_also_when_its_file_has_lost_its_name(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    topology = Topology(cell="paper", slot=3)
    volumes = Volumes(topology=topology, journal=Journal(topology=topology))
    folder = topology.state_dir / "volumes/vol-1"
    folder.mkdir(parents=True)
    behind: dict[str, str] = {"/dev/loop9": str(folder / "disk") if file != "/" else file}
    monkeypatch.setattr(loops, "backing_file", behind.get)
    monkeypatch.setattr(loops, "ask_to_free", behind.pop)
    place = Attachment(
        instance_id="i-1", device="/dev/sdf", guest_pid=2**22 + 1, guest_device="/dev/nvme1n1", loop="/dev/loop9"
    )
    volumes._save("vol-1", _State(size_gib=1, attachments=(place,)))
    volumes.release("vol-1")
    assert behind == {}
    left = volumes.attachment("vol-1")
    assert left is not None and left.loop is None
