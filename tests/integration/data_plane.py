"""A region's data plane without gateway and router, for tests: one network, machines, volumes, and a peer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import pytest

from harness import images
from harness.command import run
from harness.region.cleanup import cleanup
from harness.region.instances import Instances, InstanceSpec
from harness.region.journal import FILE_NAME, Journal
from harness.region.volumes import Volumes
from harness.topology import CELL_LABEL, Topology

DEVELOPMENT_IMAGE = images.PREFIX + "node:dev"
"""Taken instead of a long build when the image of this checkout is not there: any node image will do here."""


@dataclass(frozen=True, kw_only=True)
class DataPlane:
    topology: Topology
    volumes: Volumes
    instances: Instances
    client: Any
    image: str

    def launch(self, index: int) -> str:
        """Switch on machine number `index`; returns its instance id."""
        instance_id = f"i-{index:017x}"
        self.instances.launch(
            InstanceSpec(
                instance_id=instance_id,
                name=f"pbx-{index}",
                image=self.image,
                private_ip=str(self.topology.node_address(index)),
                access_key_id=f"AKIATEST{index}",
                secret_access_key="not-a-secret",
            )
        )
        return instance_id

    def run(self, index: int, script: str, *, check: bool = True, timeout_s: float = 20) -> str:
        """A shell script in the guest; returns what it printed."""
        argv = ["docker", "exec", f"{self.topology.cell}-pbx-{index}", "bash", "-ec", script]
        return run(argv, timeout_s=timeout_s, check=check).stdout

    def events(self) -> str:
        return (self.topology.state_dir / FILE_NAME).read_text()


@contextmanager
def data_plane(topology: Topology) -> Iterator[DataPlane]:
    """The plane of a fresh cell; everything of it is gone afterwards."""
    cleanup(topology)
    client = docker.from_env()
    pool = docker.types.IPAMPool(subnet=str(topology.vpc_subnet), gateway=str(topology.endpoint_address))
    try:
        client.networks.create(
            topology.vpc_network,
            ipam=docker.types.IPAMConfig(pool_configs=[pool]),
            options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
            labels={CELL_LABEL: topology.cell},
        )
        journal = Journal(topology=topology)
        volumes = Volumes(topology=topology, journal=journal)
        instances = Instances(topology=topology, journal=journal, volumes=volumes, docker_client=client)
        yield DataPlane(topology=topology, volumes=volumes, instances=instances, client=client, image=_image(client))
    finally:
        cleanup(topology)


def localstack_image() -> str:
    """LocalStack's image where it is here; skips the test otherwise: not every run of the tests shall build it."""
    here = images.localstack_here(docker.from_env())
    if here is None:
        pytest.skip("LocalStack's image is not here: `make test` gets it, or `python -m harness.images --localstack`")
    return here


def _image(client: Any) -> str:
    for reference in (images.wanted().node, DEVELOPMENT_IMAGE):
        if client.images.list(name=reference):
            return reference
    return images.ensure(client, say=print).node
