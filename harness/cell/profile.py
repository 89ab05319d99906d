"""A PBX profile: what runs on the nodes, as one TOML file beside the commands that run it (fixtures/pbx/<name>/).

It says which agent runs the PBX, where its data lives, on which ports it serves, whom to call. Users bring their own;
what a profile leaves out is *unknown* in results, never assumed. A mistake in a file is a `UsageError` that names the
file, the setting and what is wrong with it.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from harness.cell.policy import Scalar, unknown_facts
from harness.clients.kinds import KINDS
from harness.errors import UsageError

PROFILES = Path(__file__).resolve().parents[2] / "fixtures" / "pbx"
PROFILES_ON_NODE = "/usr/local/lib/pbx"
COMMANDS = ("init", "start", "stop", "check")
"""Executables in a profile's folder; what they are given and answer is in fixtures/agents/pbx."""

SHIPPED_AGENT = "ocf:pbxha:pbx"
Port = Annotated[int, Field(gt=0, lt=65536)]
ProcessName = Annotated[str, Field(min_length=1, max_length=15, pattern=r"^\S+$")]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Sip:
    """Domain and ports; a transport without a port is not offered by this PBX."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    domain: str
    udp_port: Port | None = None
    tcp_port: Port | None = None
    tls_port: Port | None = None
    wss_port: Port | None = None
    invite_auth: bool = False
    """Whether an INVITE of an extension is challenged (407), too."""


@dataclass(frozen=True, kw_only=True)
class Media:
    """The range of ports that the PBX uses for RTP."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    first_port: Port
    last_port: Port


@dataclass(frozen=True, kw_only=True)
class Extensions:
    """Accounts that `init` creates: every number from first to last, all with one password."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    first: Annotated[int, Field(gt=0)]
    last: Annotated[int, Field(gt=0)]
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Recovers:
    """What the product claims to bring back on the next node; None: it claims nothing."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    registrations: bool | None = None
    calls: bool | tuple[str, ...] | None = None
    """True: those of every kind of client; else the kinds (harness/clients/kinds.py) whose calls come back."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of client whose calls the product claims to recover."""
        if isinstance(self.calls, bool) or self.calls is None:
            return tuple(KINDS) if self.calls else ()
        return self.calls


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of data that the PBX keeps on the volume.

    `read` is an executable in the profile's folder: run on the active node it prints what is there as JSON lines
    (docs/add-a-pbx.md). What was acknowledged longer than `durable_after_s` before a crash is there after it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    read: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    durable_after_s: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Recordings(Kind):
    """Recordings of calls: those whose INVITE carries `header` ("Name: value"); None: nobody can ask for one."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+: \S.*$")] | None = None


@dataclass(frozen=True, kw_only=True)
class Prompts(Kind):
    """Prompts: calling `extension` plays one of them from the volume, over and over; a caller knows it by its tones."""

    extension: Annotated[int, Field(gt=0)] | None = None
    tones_hz: tuple[Annotated[int, Field(ge=300, le=3400)], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Data:
    """The four kinds of data; None: not declared, so that nothing can be said about it."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    database: Kind | None = None
    recordings: Recordings | None = None
    logs: Kind | None = None
    prompts: Prompts | None = None

    @property
    def declared(self) -> dict[str, Kind]:
        """What is declared, by name."""
        kinds = {
            "database": self.database,
            "recordings": self.recordings,
            "logs": self.logs,
            "prompts": self.prompts,
        }
        return {name: kind for name, kind in kinds.items() if kind is not None}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The whole file, and the folder it lies in. `params` are the agent's instance parameters, facts in braces.

    `main_process` is the name (/proc/PID/comm) of the process that makes a node the active PBX while it lives;
    `processes` names those of its parts (database, media, …), so that each can be injured.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    summary: str
    agent: Annotated[str, Field(pattern=r"^ocf:[a-z0-9-]+:[A-Za-z0-9_-]+$")] = SHIPPED_AGENT
    data_dir: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]+$")] = "/srv/pbx"
    main_process: ProcessName
    processes: dict[str, tuple[ProcessName, ...]] = field(default_factory=dict)
    params: dict[str, Scalar] = field(default_factory=dict)
    sip: Sip
    media: Media | None = None
    extensions: Extensions
    recovers: Recovers = field(default_factory=Recovers)
    data: Data = field(default_factory=Data)
    folder: Path = Path()

    def command(self, name: str, *, node: str, private_ip: str, public_ip: str) -> list[str]:
        """The command line that runs one of the profile's commands on a node, outside the cluster's control."""
        there = f"{PROFILES_ON_NODE}/{self.name}"
        given = {
            "DATA_DIR": self.data_dir,
            "PRIVATE_IP": private_ip,
            "PUBLIC_IP": public_ip,
            "NODE": node,
            "PROFILE_DIR": there,
        }
        return ["env", *(f"{key}={value}" for key, value in given.items()), f"{there}/{name}"]


def load_profile(name_or_path: str, *, folder: Path = PROFILES) -> Profile:
    """The profile with this name in fixtures/pbx/, or in the TOML file at this path; its commands must be there."""
    path = Path(name_or_path) if name_or_path.endswith(".toml") else folder / name_or_path / "profile.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = ", ".join(sorted(file.parent.name for file in folder.glob("*/profile.toml"))) or "none"
        raise UsageError(
            f"no PBX profile {name_or_path!r}; there are: {known} (or give the path of a .toml file)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {error}") from None
    profile = replace(parse_profile(text, source=str(path)), folder=path.resolve().parent)
    if profile.agent == SHIPPED_AGENT:
        needed = dict.fromkeys((*COMMANDS, *(kind.read for kind in profile.data.declared.values())))
        lacking = [name for name in needed if not os.access(profile.folder / name, os.X_OK)]
        if lacking:
            raise UsageError(f"{path}: beside it there must be executables {', '.join(lacking)}")
    return profile


def parse_profile(text: str, *, source: str) -> Profile:
    """A profile out of the text of its file; `source` is what errors call it."""
    try:
        raw = tomllib.loads(text)
        if "folder" in raw:
            raise UsageError(f"{source}: folder: is where the file lies, and can't be set")
        profile = TypeAdapter(Profile).validate_python(raw)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source}: not a TOML file: {error}") from None
    except ValidationError as error:
        wrong = "; ".join(f"{_where(e['loc'])}: {e['msg']}{_got(e)}" for e in error.errors())
        raise UsageError(f"{source}: {wrong}") from None
    mistakes = problems(profile)
    if mistakes:
        raise UsageError(f"{source}: {'; '.join(mistakes)}")
    return profile


def problems(profile: Profile) -> list[str]:
    """What contradicts itself, in words; empty when nothing does."""
    wrong = []
    if profile.extensions.first > profile.extensions.last:
        wrong.append(f"extensions: first ({profile.extensions.first}) is above last ({profile.extensions.last})")
    if profile.media and profile.media.first_port >= profile.media.last_port:
        wrong.append(
            f"media: first_port ({profile.media.first_port}) is not below last_port ({profile.media.last_port})"
        )
    if not any((profile.sip.udp_port, profile.sip.tcp_port, profile.sip.tls_port, profile.sip.wss_port)):
        wrong.append("sip: no port at all")
    if profile.agent == SHIPPED_AGENT and profile.params.get("profile") != profile.name:
        wrong.append(f"params.profile must be {profile.name!r}: it is where the agent finds the commands")
    wrong += [
        f"recovers.calls: no kind of client is called {kind!r}" for kind in set(profile.recovers.kinds) - set(KINDS)
    ]
    return wrong + unknown_facts("params", profile.params)


def _where(loc: tuple[Any, ...]) -> str:
    return re.sub(r"\.(\d+)", r"[\1]", ".".join(str(part) for part in loc)) or "the file"


def _got(error: Any) -> str:
    """The offending value, unless it could be a password or a whole table."""
    shown = error["input"]
    secret = "password" in error["loc"]
    return "" if secret or not isinstance(shown, str | int | float | bool) else f" (got {shown!r})"
