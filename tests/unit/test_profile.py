"""A PBX profile: the shipped one loads, a wrong one is refused with a line that says what to mend."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.cell.profile import COMMANDS, PROFILES, load_profile, parse_profile
from harness.errors import UsageError

GOOD = """
name = "mine"
summary = "a PBX"
main_process = "asterisk"
params = { profile = "mine", data_dir = "{data_dir}" }
sip = { domain = "pbx.test", udp_port = 5060 }
extensions = { first = 100, last = 199, password = "s3cret" }
"""


def with_data(line: str) -> tuple[str, str]:
    return 'summary = "a PBX"', f'summary = "a PBX"\ndata.{line}'


def test_the_stand_in_is_complete() -> None:
    profile = load_profile("stand-in")
    assert profile.folder == PROFILES / "stand-in"
    assert profile.agent == "ocf:pbxha:pbx"
    assert profile.main_process == "kamailio"
    assert (profile.sip.udp_port, profile.sip.tcp_port, profile.sip.tls_port, profile.sip.wss_port) == (
        5060,
        5063,
        5061,
        10443,
    )
    assert (profile.extensions.first, profile.extensions.last) == (1000, 29999)


def test_the_stand_in_declares_all_four_kinds_of_data() -> None:
    data = load_profile("stand-in").data
    assert list(data.declared) == ["database", "recordings", "logs", "prompts"]
    assert data.recordings is not None and data.recordings.header == "X-Record: yes"
    assert data.prompts is not None and data.prompts.extension == 900
    assert data.database is not None and data.database.durable_after_s == 0


def test_what_is_left_out_is_unknown_and_not_assumed() -> None:
    profile = parse_profile(GOOD, source="mine.toml")
    assert profile.sip.tls_port is None
    assert profile.media is None
    assert profile.recovers.calls is None
    assert profile.data.declared == {}


def test_a_command_line_carries_where_it_runs() -> None:
    argv = parse_profile(GOOD, source="mine.toml").command(
        "init", node="pbx-1", private_ip="198.18.6.11", public_ip="203.0.113.49"
    )
    assert argv[0] == "env"
    assert argv[-1] == "/usr/local/lib/pbx/mine/init"
    assert {"NODE=pbx-1", "PRIVATE_IP=198.18.6.11", "PUBLIC_IP=203.0.113.49", "DATA_DIR=/srv/pbx"} <= set(argv)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("udp_port = 5060", "udp_port = 70000"), "sip.udp_port"),
        (("udp_port = 5060", "ipx_port = 1"), "sip.ipx_port"),
        ((", udp_port = 5060", ""), "no port at all"),
        (("first = 100", "first = 300"), "first (300) is above last (199)"),
        (('profile = "mine"', 'profile = "other"'), "params.profile must be 'mine'"),
        (("{data_dir}", "{volume}"), "no fact {volume}"),
        (("{data_dir}", "{data_dir"), "params.data_dir: expected '}'"),
        (('name = "mine"', 'name = "My PBX"'), "name"),
        (('main_process = "asterisk"', 'main_process = ""'), "main_process"),
        (with_data("logs = { read = 'read-logs', durable_after_s = -1 }"), "data.logs.durable_after_s"),
        (with_data("logs = { durable_after_s = 1 }"), "data.logs.read"),
        (with_data("logs = { read = '../../bin/sh' }"), "data.logs.read"),
        (with_data("prompts = { read = 'a', extension = 'music' }"), "data.prompts.extension"),
        (with_data("recordings = { read = 'a', header = 'X-Record' }"), "data.recordings.header"),
        (with_data("recordings = { read = 'a', extension = 1 }"), "data.recordings.extension"),
        (with_data("voicemail = { read = 'a' }"), "data.voicemail"),
        (('summary = "a PBX"', 'folder = "/tmp"'), "folder"),
        (('summary = "a PBX"', "summary = "), "not a TOML file"),
    ],
)
def test_a_mistake_is_named(change: tuple[str, str], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_profile(GOOD.replace(*change), source="mine.toml")
    assert said in str(raised.value)
    assert str(raised.value).startswith("mine.toml: ")


def test_a_password_is_in_no_error_and_no_repr() -> None:
    with pytest.raises(UsageError) as raised:
        parse_profile(GOOD.replace('password = "s3cret"', "password = 424242"), source="mine.toml")
    assert "424242" not in str(raised.value)
    assert "s3cret" not in repr(parse_profile(GOOD, source="mine.toml"))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"there are: .*stand-in"):
        load_profile("stand-out")


def test_a_profile_of_ones_own_needs_its_commands(tmp_path: Path) -> None:
    path = tmp_path / "profile.toml"
    path.write_text(GOOD)
    with pytest.raises(UsageError, match="executables init, start, stop, check"):
        load_profile(str(path))
    for name in COMMANDS:
        shutil.copy("/bin/true", tmp_path / name)
    assert load_profile(str(path)).folder == tmp_path
    path.write_text(GOOD + "[data.logs]\nread = 'read-logs'\n")
    with pytest.raises(UsageError, match="executables read-logs"):
        load_profile(str(path))


def test_a_file_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"can't be read: .*Is a directory"):
        load_profile(str(folder))
