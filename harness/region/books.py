"""The books: moto's EC2 in a process of its own, on the loopback, so that the gateway can die and find them again.

moto keeps records and hands out identifiers; nothing of what it records happens by itself. The gateway asks it through
`Books`, and passes on whatever it does not handle. Nothing of moto is patched: any other implementation of the EC2 API
(LocalStack) can take its place.

Run as `python -m harness.region.books --port-file PATH`; ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from harness.region.calls import AwsError, Document
from harness.topology import REGION_NAME

API_VERSION = "2016-11-15"
TIMEOUT_S = 20.0
AUTHORIZATION = (
    f"AWS4-HMAC-SHA256 Credential=test/20250101/{REGION_NAME}/ec2/aws4_request, SignedHeaders=host, Signature=0"
)
"""Which service and region is meant; the books check no signature."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """EC2 calls of the gateway to the books; safe to use from several threads."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def post(self, action: str, params: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body of the answer, whatever it is. `AwsError` Unavailable when the books do not answer."""
        form = urlencode({"Action": action, "Version": API_VERSION, **params})
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "Authorization": AUTHORIZATION,
            "Host": f"ec2.{REGION_NAME}.amazonaws.com",
        }
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", "/", form, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise AwsError("Unavailable", f"The service is unavailable ({error})", 503) from error
        finally:
            connection.close()

    def call(self, action: str, params: Mapping[str, str]) -> Document:
        """The answer of a successful call; the books' own error as `AwsError` otherwise."""
        status, body = self.post(action, params)
        if status != 200:
            raise _error_of(status, body)
        return Document(body)


def _error_of(status: int, body: bytes) -> AwsError:
    try:
        root = Document(body).root
    except ET.ParseError:
        return AwsError("InternalError", "An internal error has occurred", 500)
    code, message = root.findtext(".//Code"), root.findtext(".//Message")
    return AwsError(code or "InternalError", message or "An internal error has occurred", status)


def read_port(path: Path) -> int | None:
    """The port that the books wrote down, or None when they are not that far."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.region.books", description="the records of the region")
    parser.add_argument("--port-file", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    from moto.server import ThreadedMotoServer  # slow to import: only here

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    new = options.port_file.with_suffix(".new")
    new.write_text(str(port))
    new.replace(options.port_file)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
