"""EC2's rules for instances as tables: state in, decision or error out."""

from __future__ import annotations

from typing import Any

import pytest

from harness.region.calls import AwsError
from harness.region.semantics import instances
from harness.region.semantics.instances import GUEST_INITIATED, INSTANCE_LIMIT, LAUNCHING, USER_INITIATED

ONE, TWO = "i-00000000000000001", "i-00000000000000002"


def outcome(function: Any, *arguments: Any, **options: Any) -> Any:
    """What it decides, or the code of its error."""
    try:
        return function(*arguments, **options)
    except AwsError as error:
        return error.code


@pytest.mark.parametrize(
    ("power", "transition", "state"),
    [
        ("on", None, "running"),
        ("stopping", None, "stopping"),
        ("off", None, "stopped"),
        ("gone", None, "terminated"),
        ("gone", "pending", "pending"),
        ("on", "pending", "pending"),
        ("on", "stopping", "stopping"),
        ("off", "stopping", "stopping"),
        ("on", "shutting-down", "shutting-down"),
        ("gone", "shutting-down", "shutting-down"),
        ("off", "rebooting", "running"),
        ("off", "recovering", "running"),
    ],
)
def test_state(power: Any, transition: Any, state: str) -> None:
    assert instances.instance_state(power, transition) == state


@pytest.mark.parametrize(
    ("power", "seen", "now", "state"),
    [
        ("stopping", None, "stopping", "running"),
        ("off", None, "stopping", "running"),
        ("on", None, "pending", "stopped"),
        ("off", None, None, "stopped"),
        ("off", "stopping", None, "stopping"),
        ("on", "pending", None, "pending"),
        ("off", None, "rebooting", "stopped"),
    ],
)
def test_an_answer_that_lags_says_what_was(power: Any, seen: Any, now: Any, state: str) -> None:
    assert instances.seen_state(power, seen=seen, now=now) == state


@pytest.mark.parametrize(
    ("state", "skip", "force", "decided"),
    [
        ("running", True, False, "power_off"),
        ("running", False, False, "shut_down"),
        ("running", False, True, "shut_down"),
        ("running", True, True, "power_off"),
        ("stopping", True, False, "nothing"),
        ("stopping", False, True, "nothing"),
        ("stopping", True, True, "hurry"),
        ("stopped", False, False, "nothing"),
        ("stopped", True, True, "nothing"),
        ("pending", False, False, "IncorrectInstanceState"),
        ("shutting-down", False, True, "IncorrectInstanceState"),
        ("terminated", True, False, "IncorrectInstanceState"),
    ],
)
def test_stop(state: Any, skip: bool, force: bool, decided: str) -> None:
    assert outcome(instances.decide_stop, ONE, state, skip_os_shutdown=skip, force=force) == decided


@pytest.mark.parametrize(
    ("state", "decided"),
    [
        ("stopped", "start"),
        ("running", "nothing"),
        ("pending", "nothing"),
        ("stopping", "IncorrectInstanceState"),
        ("shutting-down", "IncorrectInstanceState"),
        ("terminated", "IncorrectInstanceState"),
    ],
)
def test_start(state: Any, decided: str) -> None:
    assert outcome(instances.decide_start, ONE, state) == decided


@pytest.mark.parametrize("state", ["pending", "stopping", "stopped", "shutting-down", "terminated"])
def test_a_reboot_needs_a_running_instance(state: Any) -> None:
    assert outcome(instances.decide_reboot, ONE, "running") is None
    assert outcome(instances.decide_reboot, ONE, state) == "IncorrectState"


@pytest.mark.parametrize(
    ("state", "skip", "force", "decided"),
    [
        ("pending", False, False, "shut_down"),
        ("running", False, True, "shut_down"),
        ("running", True, False, "power_off"),
        ("stopping", False, False, "shut_down"),
        ("stopped", False, False, "shut_down"),
        ("shutting-down", False, True, "nothing"),
        ("shutting-down", True, True, "hurry"),
        ("terminated", True, True, "nothing"),
    ],
)
def test_terminate(state: Any, skip: bool, force: bool, decided: str) -> None:
    assert instances.decide_terminate(state, skip_os_shutdown=skip, force=force) == decided


@pytest.mark.parametrize(
    ("stop", "termination", "stops", "terminates"),
    [
        (False, False, None, None),
        (True, False, "OperationNotPermitted", "OperationNotPermitted"),
        (False, True, None, "OperationNotPermitted"),
    ],
)
def test_protection(stop: bool, termination: bool, stops: str | None, terminates: str | None) -> None:
    assert outcome(instances.check_stop_allowed, ONE, stop_protected=stop) == stops
    protections = {"stop_protected": stop, "termination_protected": termination}
    assert outcome(instances.check_terminate_allowed, ONE, **protections) == terminates


@pytest.mark.parametrize(
    ("state", "recorded", "shown"),
    [
        ("running", None, None),
        ("running", USER_INITIATED, None),
        ("pending", None, LAUNCHING),
        ("stopping", USER_INITIATED, USER_INITIATED),
        ("stopped", USER_INITIATED, USER_INITIATED),
        ("stopped", None, GUEST_INITIATED),
        ("terminated", USER_INITIATED, USER_INITIATED),
        ("terminated", None, None),
    ],
)
def test_state_reason(state: Any, recorded: Any, shown: Any) -> None:
    assert instances.state_reason(state, recorded) == shown


@pytest.mark.parametrize(
    ("state", "dead", "frozen", "initializing", "checks"),
    [
        ("running", False, False, False, ("ok", "ok")),
        ("running", False, False, True, ("initializing", "initializing")),
        ("running", False, True, False, ("ok", "impaired")),
        ("running", True, False, False, ("impaired", "impaired")),
        ("stopped", False, False, False, ("not-applicable", "not-applicable")),
        ("pending", False, False, True, ("not-applicable", "not-applicable")),
    ],
)
def test_status_checks(state: Any, dead: bool, frozen: bool, initializing: bool, checks: tuple[str, str]) -> None:
    assert instances.status_checks(state, host_dead=dead, frozen=frozen, initializing=initializing) == checks


@pytest.mark.parametrize(
    ("minimum", "maximum", "living", "addressed", "count"),
    [
        ("1", "1", 0, True, 1),
        ("2", "5", 3, False, 5),
        ("2", "5", INSTANCE_LIMIT - 3, False, 3),
        ("2", "5", INSTANCE_LIMIT - 1, False, "InstanceLimitExceeded"),
        ("1", "99999", 0, False, INSTANCE_LIMIT),
        ("2", "2", 0, True, "InvalidParameterCombination"),
        ("0", "1", 0, False, "InvalidParameterValue"),
        ("3", "2", 0, False, "InvalidParameterValue"),
        ("x", "2", 0, False, "InvalidParameterValue"),
        ("1", "-1", 0, False, "InvalidParameterValue"),
    ],
)
def test_count(minimum: str, maximum: str, living: int, addressed: bool, count: Any) -> None:
    assert outcome(instances.decide_count, minimum, maximum, living=living, addressed=addressed) == count


@pytest.mark.parametrize(
    ("instance_id", "code"),
    [(ONE, None), ("i-zz", "InvalidInstanceID.Malformed"), (TWO, "InvalidInstanceID.NotFound")],
)
def test_instance_id(instance_id: str, code: str | None) -> None:
    assert outcome(instances.check_instance_id, instance_id, {ONE}) == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (None, None),
        ("m5.large", None),
        ("u-6tb1.56xlarge", None),
        ("large", "InvalidParameterValue"),
        ("M5.large", "InvalidParameterValue"),
    ],
)
def test_instance_type(name: str | None, code: str | None) -> None:
    assert outcome(instances.check_instance_type, name) == code
