"""The images of the containers, built once per content and reused: the base image, a node, and the network tools;
LocalStack's and the one with the real client programs (Chromium, baresip, SIPp) only where they are asked for.

An image's tag is the hash of what it is made from, so a change builds anew and nothing else does. Where no registry
can be reached the base image is made from Debian's packages (mmdebstrap). `python -m harness.images` builds what a cell
needs, with `--localstack` and `--client` those too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

from harness import engine
from harness.command import run
from harness.errors import InfrastructureError

ROOT = Path(__file__).resolve().parent.parent / "fixtures" / "images"
BASE = "debian:bookworm-slim"
PREFIX = "pbx-chaos-"
BUILD_TIMEOUT_S = 1200
PULL_TIMEOUT_S = 60
LOCALSTACK_TOKEN = "LOCALSTACK_AUTH_TOKEN"
"""Environment variable with LocalStack's licence token, as LocalStack itself calls it."""

PUBLIC_LOCALSTACK = "localstack/localstack:latest"
"""Demands a token since March 2026."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Images:
    """References of the images a cell is made of; `localstack` only where its books are to be kept by that, `client`
    only where a browser, a softphone or load takes part."""

    node: str
    net: str
    localstack: str | None = None
    client: str | None = None


def wanted(*, localstack: bool = False, programs: bool = False) -> Images:
    """The images of this checkout, whether they are built or not; with `programs` that of the client programs too."""
    return Images(
        node=_reference("node"),
        net=_reference("net"),
        localstack=_reference("localstack") if localstack else None,
        client=_reference("client") if programs else None,
    )


def missing(client: Any, *, localstack: bool = False, programs: bool = False) -> list[str]:
    """References of the images that would have to be built."""
    images = wanted(localstack=localstack, programs=programs)
    references = (images.net, images.node, images.localstack, images.client)
    return [r for r in references if r is not None and not _exists(client, r)]


def ensure(client: Any, *, say: Say, localstack: bool = False, programs: bool = False) -> Images:
    """Build what is missing; raises `InfrastructureError` with the end of the build's output when that fails.

    With `localstack` also LocalStack's image: the public one where a token is given and it can be pulled, else ours.
    """
    public = _public_localstack(client, say) if localstack else None
    images = wanted(localstack=localstack and public is None, programs=programs)
    if missing(client, localstack=images.localstack is not None, programs=programs):
        _ensure_base(client, say)
    parts = {"net": images.net, "node": images.node, "localstack": images.localstack, "client": images.client}
    for name, reference in parts.items():
        if reference is not None and not _exists(client, reference):
            say(f"building {reference} (once, a few minutes)")
            _build(client, ROOT / name, reference)
    return replace(images, localstack=public or images.localstack)


def localstack_here(client: Any) -> str | None:
    """What `ensure` chooses for LocalStack, of what is on this host: the public image with a token, else ours.

    None when neither is here.
    """
    public = (PUBLIC_LOCALSTACK,) if os.environ.get(LOCALSTACK_TOKEN) else ()
    return next((r for r in (*public, _reference("localstack")) if _exists(client, r)), None)


def _public_localstack(client: Any, say: Say) -> str | None:
    """The public image, pulled if it is not there; None without a token (it starts with one only), or a registry."""
    if not os.environ.get(LOCALSTACK_TOKEN):
        return None
    if not _exists(client, PUBLIC_LOCALSTACK):
        say(f"pulling {PUBLIC_LOCALSTACK}")
        try:
            repository, tag = PUBLIC_LOCALSTACK.split(":")
            docker.APIClient(timeout=PULL_TIMEOUT_S).pull(repository, tag=tag)
        except (DockerException, RequestException) as error:
            say(f"no registry ({type(error).__name__}); taking LocalStack's last version that needs no token")
            return None
    return PUBLIC_LOCALSTACK


def _reference(name: str) -> str:
    digest = hashlib.sha256()
    for path in sorted((ROOT / name).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{PREFIX}{name}:{digest.hexdigest()[:12]}"


def _exists(client: Any, reference: str) -> bool:
    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True


def _ensure_base(client: Any, say: Say) -> None:
    if _exists(client, BASE):
        return
    say(f"pulling {BASE}")
    try:
        repository, tag = BASE.split(":")
        docker.APIClient(timeout=PULL_TIMEOUT_S).pull(repository, tag=tag)
    except Exception as error:
        say(f"no registry ({type(error).__name__}); making {BASE} from Debian's packages")
    if not _exists(client, BASE):
        _bootstrap_base(client)


def _bootstrap_base(client: Any) -> None:
    """A minimal Debian 12 from the host's own apt sources where those are Debian's, else from mmdebstrap's default."""
    if shutil.which("mmdebstrap") is None:
        raise InfrastructureError(
            f"no image registry is reachable and mmdebstrap is not installed: `apt-get install mmdebstrap`, "
            f"or load {BASE} yourself (`docker load`)"
        )
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        argv = ["mmdebstrap", "--variant=minbase", "bookworm", archive.name]
        run([*argv, *_apt_sources()], timeout_s=BUILD_TIMEOUT_S)
        repository, tag = BASE.split(":")
        client.api.import_image_from_file(archive.name, repository=repository, tag=tag)


def _apt_sources() -> list[str]:
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    return [str(sources)] if sources.exists() and "bookworm" in sources.read_text() else []


def _build(client: Any, folder: Path, reference: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch) / "context"
        shutil.copytree(folder, context)
        requirements = context / "requirements.txt"
        if requirements.exists():
            _fetch_wheels(requirements, context / "wheels")
        if (context / "package-lock.json").exists() and shutil.which("npm"):
            run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(context)], timeout_s=300)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(context, arcname=".")
        archive.seek(0)
        tail: list[str] = []
        try:
            stream = client.api.build(
                fileobj=archive, custom_context=True, tag=reference, rm=True, forcerm=True, network_mode="host",
                decode=True, timeout=BUILD_TIMEOUT_S,
            )  # fmt: skip
            for row in stream:
                if "error" in row:
                    raise InfrastructureError(f"building {reference} failed: {row['error']}; {' | '.join(tail[-3:])}")
                tail = [*tail[-20:], str(row.get("stream", "")).strip()]
        except (DockerException, RequestException) as error:
            raise InfrastructureError(f"building {reference} failed: {error}") from error


def _fetch_wheels(requirements: Path, target: Path) -> None:
    """Wheels for the image's Python (Debian 12: 3.11), fetched by the host's pip with the host's own settings."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--python-version", "3.11"]
    for tag in ("manylinux2014", "manylinux_2_28", "manylinux_2_17"):
        argv += ["--platform", f"{tag}_{platform.machine()}"]
    argv += ["--dest", str(target), "--requirement", str(requirements)]
    run(argv, timeout_s=300)


def main() -> int:
    """Build what is missing; prints one line per step."""
    parser = argparse.ArgumentParser(prog="python -m harness.images", description="build the images that are missing")
    parser.add_argument("--localstack", action="store_true", help="LocalStack's too (1-2 minutes)")
    parser.add_argument("--client", action="store_true", help="that of Chromium, baresip and SIPp too (2-3 minutes)")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(f"images: {line}", flush=True)

    try:
        client = engine.connect()
        images = ensure(client, say=say, localstack=options.localstack, programs=options.client)
    except (InfrastructureError, DockerException, RequestException) as error:
        print(f"images: {error}", file=sys.stderr)
        return 2
    built = (images.node, images.net, images.localstack, images.client)
    print(f"images: {', '.join(r for r in built if r)} are there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
