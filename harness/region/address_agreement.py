"""Books, state and router of public addresses agree again, whenever the gateway before this one was killed.

What is written down is true: the router is made to have exactly that (ec2_addresses.resume), whether the gateway died
before or after it. What can't both be true of what is written down (an older version wrote an association in several
steps) is mended first: who died in between has never answered.
"""

from __future__ import annotations

from harness.region.calls import AwsError
from harness.region.plane import LOG, Plane
from harness.region.semantics.addresses import agreed


def restore(plane: Plane) -> None:
    """Called before the router is looked at. Books that are away are told at the next start."""
    with plane.state.lock:
        _mend(plane)
        try:
            _compare(plane)
        except AwsError as error:
            LOG.warning("the books of addresses were not compared: %s", error)


def _mend(plane: Plane) -> None:
    """Nobody has an address who can't have it."""
    addresses, instances = agreed(plane.state.addresses.values(), plane.state.instances.values())
    if addresses or instances:
        plane.state.put(*addresses, *instances)
    for address in addresses:
        plane.journal.record("association_dropped", public_ip=address.public_ip)


def _compare(plane: Plane) -> None:
    """AllocateAddress had got as far as the books, or ReleaseAddress."""
    told = plane.books.call("DescribeAddresses", {}).items("addressesSet")
    books = {item.findtext("allocationId") or "": item.findtext("publicIp") for item in told}
    for allocation_id in books.keys() - plane.state.addresses.keys():
        if allocation_id:
            plane.books.call("ReleaseAddress", {"AllocationId": allocation_id})
    for allocation_id, address in list(plane.state.addresses.items()):
        if allocation_id not in books and address.association_id is None:
            plane.state.drop(address)
