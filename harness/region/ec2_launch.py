"""RunInstances: how an instance comes to be."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from harness.region import capacity, ec2_addresses, ec2_filters, ec2_interfaces, launch_volumes
from harness.region.calls import AwsError, Call, Document, answer, put
from harness.region.credentials import new_access_key_id
from harness.region.ec2_instances import gone, show, still, tell_terminated, transition_done
from harness.region.ec2_subnets import zone_of_launch
from harness.region.ec2_volumes import connect_volumes
from harness.region.idempotency import Made, marks
from harness.region.instances import InstanceSpec
from harness.region.plane import Action, Found, Plane, refuse_dry_run
from harness.region.semantics import addresses, instances
from harness.region.semantics.instances import InstanceState, StateReason
from harness.region.state import LAUNCH_TIME, Instance, Volume

KEPT_HERE = ("BlockDeviceMapping.", "ClientToken", "IamInstanceProfile.", "DisableApi")
"""Beginnings of parameters that the books are not told: what they say is carried out, or remembered, by the region."""


def run_instances(plane: Plane, call: Call) -> bytes:
    """RunInstances: entered in the books, `pending`, each launched by a worker; all that are asked for, or none.

    Several instances of one call are entered in the books one by one, because each has an address that is chosen here.
    They are written down at once, with the call's client token and their volumes, before any of it is made.
    """
    refuse_dry_run(call)
    image = _image_reference(plane, call.require("ImageId"))
    instances.check_instance_type(call.get("InstanceType"))
    instances.check_shutdown_behavior(call.get("InstanceInitiatedShutdownBehavior"))
    _check_supported(call)
    devices = launch_volumes.block_devices(call.params)
    user_data, profile = _decoded(call.get("UserData")), _profile(call)
    token, digest = marks(call)
    with plane.state.lock:
        zone = zone_of_launch(plane, call)
        group_ids = ec2_filters.launch_groups(plane, call)
        living = [i for i in plane.state.instances.values() if not i.terminated]
        wanted, listed = ec2_interfaces.asked_at_launch(call)
        minimum, maximum = call.require("MinCount"), call.require("MaxCount")
        addressed = wanted is not None or bool(listed)
        count = instances.decide_count(minimum, maximum, living=len(living), addressed=addressed)
        instance_type = call.get("InstanceType") or Instance.instance_type
        capacity.check_room(plane.topology, capacity.LAUNCH, instance_type, zone)
        chosen: list[list[str]] = []
        taken = {ip for i in living for ip in i.private_ips}
        for _ in range(count):
            primary = str(addresses.choose_private(plane.topology.vpc_subnet, wanted, taken))
            others = ec2_interfaces.secondaries_at_launch(plane, call, listed, taken={*taken, primary})
            chosen.append([primary, *others])
            taken |= {primary, *others}
        documents: list[Document] = []
        records: list[Instance] = []
        volumes: list[Volume] = []
        try:
            for index, (address, *secondary) in enumerate(chosen):
                documents.append(plane.books.call("RunInstances", _books_params(call.params, address)))
                item = _launched(documents[-1])
                record = _record(call, item, image=image, address=address, user_data=user_data, profile=profile)
                record = replace(
                    record,
                    secondary_ips=tuple(secondary),
                    wants_public=_wants_public(plane, call, item),
                    group_ids=group_ids,
                    zone=zone,
                    client_token=token,
                    token_digest=digest,
                )
                records.append(record)
                for volume in launch_volumes.enter(plane, call, record, devices):
                    volumes.append(volume)
                _show_launched(plane, item, record, "pending")
                put(item, "amiLaunchIndex", index)
            plane.state.put(*records, *volumes)
            launch_volumes.make(plane, volumes)
        except Exception:
            try:
                _undo(plane, documents, volumes)
            except Exception:  # a full disk
                plane.background(plane.until_done, _undo, plane, documents, volumes)
            raise
        ec2_filters.sync(plane)
    for document in documents:
        plane.background(finish_launch, plane, _launched(document).findtext("instanceId"))
    first = documents[0]
    together = first.root.find("instancesSet")
    for document in documents[1:]:
        if together is not None:
            together.append(_launched(document))
    return first.body(call)


def launched_before(plane: Plane, call: Call, token: str) -> Made | None:
    """The instances that were launched under this client token, as they are now."""
    with plane.state.lock:
        records = [record for record in plane.state.instances.values() if record.client_token == token]
        if not records:
            return None
        document = Document(answer(call, {"instancesSet": [{"instanceId": r.instance_id} for r in records]}))
        if not any(record.terminated for record in records):  # else nobody sees more of the answer than their ids
            ids = {f"InstanceId.{n}": record.instance_id for n, record in enumerate(records, 1)}
            told = plane.books.call("DescribeInstances", ids)
            items = {i.findtext("instanceId"): i for i in told.items("reservationSet", "instancesSet")}
            document = Document(answer(call, {}))
            document.root.extend(e for e in next(told.items("reservationSet")) if e.tag != "instancesSet")
            together = ET.SubElement(document.root, "instancesSet")
            for index, record in enumerate(records):
                item = items[record.instance_id]
                _show_launched(plane, item, record, plane.state_of(record))
                put(item, "amiLaunchIndex", index)
                together.append(item)
    return Made(digest=records[0].token_digest, body=document.body(call))


def finish_launch(plane: Plane, instance_id: str) -> None:
    """Worker: make the machine. A launch that fails ends as EC2's do: terminated, with a reason."""
    record = plane.state.instances[instance_id]
    spec = InstanceSpec(
        instance_id=instance_id,
        name=record.name,
        image=record.image,
        private_ip=record.private_ip,
        access_key_id=record.access_key_id,
        secret_access_key=record.secret_access_key,
        user_data=record.user_data,
        zone=record.zone,
    )
    plane.take("launch")
    with plane.machine_lock(instance_id):
        if not still(plane, instance_id, "pending"):
            return
        try:
            if instance_id in plane.instances.list():  # made by a gateway that was killed before it ran
                plane.instances.start(instance_id)
            else:
                ec2_addresses.give_own_address(plane, instance_id)
                ec2_interfaces.sync_owners(plane)
                plane.instances.launch(spec)
            connect_volumes(plane, instance_id)
            plane.refresh_metadata(instance_id)
        except Exception as error:
            plane.until_done(_give_up, plane, instance_id, str(error))
            raise
        transition_done(plane, instance_id, "pending")


def _give_up(plane: Plane, instance_id: str, why: str) -> None:
    """Worker, machine lock held: nothing is left of an instance that could not be launched. Can be done again."""
    if plane.state.instances[instance_id].terminated:
        return
    with suppress(Exception):
        plane.instances.terminate(instance_id)
    tell_terminated(plane, instance_id)
    launch_volumes.part_and_delete(plane, instance_id)
    gone(plane, instance_id, StateReason(code="Server.InternalError", message=why))


def resume(plane: Plane) -> None:
    """Take up the launches that a gateway before this one left half done."""
    for record in list(plane.state.instances.values()):
        if record.transition == "pending" and record.how != "start":
            plane.background(finish_launch, plane, record.instance_id)


def _record(call: Call, item: ET.Element, *, image: str, address: str, user_data: str, profile: str) -> Instance:
    """The record of an instance that the books have just made."""
    instance_id = item.findtext("instanceId") or ""
    return Instance(
        instance_id=instance_id,
        name=_tag(call, "Name") or instance_id,
        image=image,
        private_ip=address,
        interface_id=item.findtext("networkInterfaceSet/item/networkInterfaceId") or "",
        access_key_id=new_access_key_id(),
        secret_access_key=secrets.token_urlsafe(30),
        user_data=user_data,
        transition="pending",
        instance_type=call.get("InstanceType") or Instance.instance_type,
        profile=profile,
        stop_protected=call.flag("DisableApiStop"),
        termination_protected=call.flag("DisableApiTermination"),
        launched=datetime.now(UTC).strftime(LAUNCH_TIME),
    )


def _show_launched(plane: Plane, item: ET.Element, record: Instance, state: InstanceState) -> None:
    """An instance in the answer to RunInstances. Under the lock."""
    show(item, record, state)
    ec2_interfaces.show_network(item, record, plane.state.now(), ec2_filters.group_names(plane))


def _wants_public(plane: Plane, call: Call, item: ET.Element) -> bool:
    """Whether it gets a public address of its own: as the call says, else as its subnet does (MapPublicIpOnLaunch)."""
    asked = call.get("NetworkInterface.1.AssociatePublicIpAddress")
    if asked is not None:
        return asked.lower() == "true"
    subnet_id = item.findtext("subnetId") or ""
    subnet = next(plane.books.call("DescribeSubnets", {"SubnetId.1": subnet_id}).items("subnetSet"), None)
    return subnet is not None and subnet.findtext("mapPublicIpOnLaunch") == "true"


def _undo(plane: Plane, documents: Sequence[Document], volumes: Sequence[Volume]) -> None:
    """None of the instances of a call that failed half-way has ever been there. Can be done again."""
    with plane.state.lock:
        launch_volumes.forget(plane, volumes)
        for document in documents:
            instance_id = _launched(document).findtext("instanceId") or ""
            if instance_id in plane.state.instances:
                launch_volumes.part_and_delete(plane, instance_id, every=True)
                record = plane.state.instances[instance_id]
                forgotten = replace(record, client_token="", token_digest="")  # what failed does not use a token up
                plane.state.put(replace(forgotten, transition=None, terminated=True))
            with suppress(AwsError):
                plane.books.call("TerminateInstances", {"InstanceId.1": instance_id})


def _image_reference(plane: Plane, image_id: str) -> str:
    """The Docker image behind an AMI: its name, as `start_region` registered it."""
    document: Document = plane.books.call("DescribeImages", {"ImageId.1": image_id})
    item = next(document.items("imagesSet"), None)
    if item is None:
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    return item.findtext("name") or ""


def _books_params(params: Mapping[str, str], address: str) -> dict[str, str]:
    """RunInstances for the books: one instance, with its address, which is free again once it is terminated.

    That is so on AWS for an interface that was made at launch; the books free it only where they are told to.
    """
    nic = "NetworkInterface.1."
    kept = {k: v for k, v in ec2_interfaces.without_addresses(params).items() if not k.startswith(KEPT_HERE)}
    if kept.get(f"{nic}DeleteOnTermination", "true").lower() == "false":
        raise AwsError("UnsupportedOperation", "In this region a primary network interface goes with its instance.")
    if any(key.startswith("NetworkInterface.") for key in params) and {"SubnetId", "PrivateIpAddress"} & set(params):
        raise AwsError(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID or address may not be specified on the same request",
        )
    subnet = kept.pop("SubnetId", None)
    if subnet is not None:
        kept.setdefault(f"{nic}SubnetId", subnet)
    mine = {f"{nic}DeviceIndex": "0", f"{nic}PrivateIpAddress": address, f"{nic}DeleteOnTermination": "true"}
    return {**kept, **mine, "MinCount": "1", "MaxCount": "1"}


def _check_supported(call: Call) -> None:
    """What the books would write down and no machine would have is refused."""
    if call.flag("HibernationOptions.Configured"):
        raise AwsError("UnsupportedOperation", "In this region no instance can hibernate.")
    numbers = {name.split(".")[1] for name in call.params if name.startswith("NetworkInterface.")}
    if numbers - {"1"} or (call.get("NetworkInterface.1.DeviceIndex") or "0") != "0":
        raise AwsError("UnsupportedOperation", "In this region an instance has one network interface.")


def _profile(call: Call) -> str:
    """The IAM instance profile, by ARN or name."""
    arn, name = call.get("IamInstanceProfile.Arn"), call.get("IamInstanceProfile.Name")
    if arn is not None and name is not None:
        raise AwsError("InvalidParameterCombination", "Either the name or the ARN of an instance profile is given.")
    given = arn or name or ""
    if given and not re.fullmatch(
        r"arn:aws:iam::\d{12}:instance-profile/[\w+=,.@/-]+" if arn else r"[\w+=,.@-]{1,128}", given
    ):
        raise AwsError("InvalidParameterValue", f"Value ({given}) for parameter iamInstanceProfile is invalid.")
    return given


def _tag(call: Call, key: str) -> str | None:
    """A tag of the instance given at launch (TagSpecification.N.Tag.M)."""
    for name, value in call.params.items():
        if name.startswith("TagSpecification.") and name.endswith(".Key") and value == key:
            owner = name.split(".Tag.")[0] + ".ResourceType"
            if call.params.get(owner, "instance") == "instance":
                return call.params.get(name.removesuffix("Key") + "Value")
    return None


def _decoded(user_data: str | None) -> str:
    try:
        return base64.b64decode(user_data or "", validate=True).decode("utf-8", "replace")
    except binascii.Error:
        raise AwsError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None


def _launched(document: Document) -> ET.Element:
    """The one instance in the books' answer to RunInstances."""
    return next(document.items("instancesSet"))


ACTIONS: Mapping[str, Action] = {"RunInstances": run_instances}

MADE: Mapping[str, Found] = {"RunInstances": launched_before}
