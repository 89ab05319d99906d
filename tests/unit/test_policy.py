"""Policies: the shipped ones load, and a mistake in a file is named, with file and setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cell.policy import POLICIES, Corosync, effective_token_ms, load_policy, parse_policy
from harness.errors import UsageError

MINIMAL = """
name = "mine"
summary = "one line"

[[resource]]
id = "pbx"
role = "pbx"
"""


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_policy_loads_under_its_own_name(path: Path) -> None:
    policy = load_policy(path.stem)
    assert policy.name == path.stem
    assert policy.summary


@pytest.mark.parametrize("name", ["default", "tuned"])
def test_default_and_tuned_fence_and_own_all_four_parts(name: str) -> None:
    policy = load_policy(name)
    assert policy.fencing.enabled
    assert [r.role for r in policy.resource] == ["volume", "filesystem", "pbx", "address"]
    assert policy.limits.outage_limit_s


def test_what_a_file_leaves_out_stays_absent() -> None:
    policy = parse_policy(MINIMAL, source="mine.toml")
    assert policy.corosync == Corosync()
    assert policy.corosync.token_ms is None
    assert policy.properties == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[corosync]\ntoken_mss = 1000", "corosync.token_mss"),
        ("[corosync]\ntoken_ms = 0", "corosync.token_ms"),
        ("[corosync]\ntoken_ms = 1000\nconsensus_ms = 1200", "consensus_ms: 1200 is below 1.2"),
        ("[properties]\nstonith-enabled = false", "set fencing.enabled instead"),
        ("[properties]\ndc-deadtme = '1s'", "properties.dc-deadtme: Pacemaker 2.1 has no such name"),
        ("[defaults]\nstickiness = 1", "defaults.stickiness"),
        ("[fencing]\nparams = { region = '{regoin}' }", "no fact {regoin}"),
        ("[fencing]\nparams = { region = '{' }", "fencing.params.region"),
        ("[[resource]]\nid = 'pbx'\nrole = 'other'\nagent = 'ocf:a:b'", "resource 'pbx' is there 2 times"),
        ("[[resource]]\nid = 'volume'\nrole = 'volume'", "resource volume: agent is missing"),
        ("[[resource]]\nid = 'volume'\nrole = 'volume'\nagent = 'awsebs'", "resource[1].agent"),
        ("[[resource]]\nid = 'volume'\nrole = 'disk'\nagent = 'ocf:a:b'", "resource[1].role"),
        ("= 1", "not a TOML file"),
    ],
)
def test_mistakes_are_named(change: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_policy(MINIMAL + change, source="mine.toml")
    assert message in str(error.value)
    assert str(error.value).startswith("mine.toml: ")


def test_parallel_address_needs_a_file_system_and_an_address() -> None:
    with pytest.raises(UsageError, match="parallel-address needs"):
        parse_policy(MINIMAL.replace("[[", "ordering = 'parallel-address'\n[[", 1), source="mine.toml")


def test_our_agents_come_as_tuned_with_two_agents_changed() -> None:
    stock, ours = load_policy("tuned"), load_policy("tuned-own-agents")
    assert (stock.fencing.agent, ours.fencing.agent) == ("fence_aws", "fence_pbxha_aws")
    assert (stock.resource[3].agent, ours.resource[3].agent) == ("ocf:heartbeat:awseip", "ocf:pbxha:awseip")
    assert stock.resource[:3] == ours.resource[:3]
    assert (stock.corosync, stock.properties, stock.defaults, stock.limits, stock.ordering) == (
        ours.corosync,
        ours.properties,
        ours.defaults,
        ours.limits,
        ours.ordering,
    )


BASE = (
    MINIMAL
    + """
agent = "ocf:x:base"
monitor_interval_s = 5
params = { a = "1", b = "2" }

[corosync]
token_ms = 1000
rings = 2
"""
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text(BASE)
    return tmp_path


def test_a_policy_extends_another_by_what_it_says_itself(base: Path) -> None:
    text = """
extends = "base"
name = "own"
[corosync]
token_ms = 2000
[[resource]]
id = "pbx"
agent = "ocf:x:own"
params = { c = "3" }
[[resource]]
id = "mail"
role = "other"
agent = "ocf:x:mail"
"""
    policy = parse_policy(text, source="own.toml", folder=base)
    assert (policy.name, policy.summary) == ("own", "one line")
    assert (policy.corosync.token_ms, policy.corosync.rings) == (2000, 2)
    pbx, mail = policy.resource
    assert (pbx.agent, pbx.monitor_interval_s, pbx.params) == ("ocf:x:own", 5, {"c": "3"})
    assert mail.id == "mail"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends = 'bsae'", "no policy 'bsae'; there are: base"),
        ("extends = ['base']", "the name of one policy"),
        ("extends = 'base'\nname = 'own'\nresource = [1]", "resource[0]"),
        ("extends = 'base'\nname = 'own'\n" + 2 * "[[resource]]\nid = 'pbx'\nrole = 'pbx'\n", "'pbx' is there 2 times"),
        ("extends = 'circle'", "circle extends circle"),
        ("extends = 'base'\n[limits]\noutage_limit_s = 999", "needs a name of its own"),
    ],
)
def test_mistakes_in_an_extending_policy_are_named(base: Path, text: str, message: str) -> None:
    (base / "circle.toml").write_text("extends = 'circle'")
    with pytest.raises(UsageError) as error:
        parse_policy(text, source="own.toml", folder=base)
    assert message in str(error.value)


def test_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="default, tuned"):
        load_policy("tunde")


@pytest.mark.parametrize(
    ("corosync", "nodes", "token_ms"),
    [
        (Corosync(), 3, 3650),
        (Corosync(), 2, 3000),
        (Corosync(token_ms=1000), 3, 1650),
        (Corosync(token_ms=1000, token_coefficient_ms=0), 3, 1000),
    ],
)
def test_effective_token(corosync: Corosync, nodes: int, token_ms: int) -> None:
    assert effective_token_ms(corosync, nodes=nodes) == token_ms


def test_a_file_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    folder, binary = tmp_path / "folder.toml", tmp_path / "binary.toml"
    folder.mkdir()
    binary.write_bytes(b"\xff\xfe")
    for path, why in ((folder, "Is a directory"), (binary, "can't decode")):
        with pytest.raises(UsageError, match=f"{path} can't be read: .*{why}"):
            load_policy(str(path))
