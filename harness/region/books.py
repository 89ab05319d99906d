"""The books: an EC2 that only keeps records, in a process of its own, so that the gateway can die and find them again.

They hand out identifiers; nothing of what they record happens by itself. The gateway asks them through `Books`, and
passes on whatever it does not handle. Two kinds are known: moto, which is this module on the loopback, and LocalStack
in a container (localstack.py). Nothing of either is patched; where they answer differently the gateway mends it.

Run as `python -m harness.region.books --place-file PATH`; ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from harness.region.calls import BOOKS_ACCOUNT, AwsError, Document, one_of_each
from harness.region.files import write_json
from harness.topology import REGION_NAME, Topology

API_VERSION = "2016-11-15"
TIMEOUT_S = 20.0
Kind = Literal["moto", "localstack"]


class BooksFailed(AwsError):
    """The books broke on a call: mostly one that they never learnt. No client is to take that for AWS's own trouble."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """EC2 calls of the gateway to the books; safe to use from several threads.

    `account` is whose records are meant: LocalStack keeps those of several apart, moto does not ask.
    """

    host: str
    port: int
    kind: Kind = "moto"
    account: str = BOOKS_ACCOUNT

    @classmethod
    def read(cls, path: Path) -> Books | None:
        """The books whose place is written down at `path`, or None when they are not that far."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def write(self, path: Path) -> None:
        """Tell other processes that the books answer, and where."""
        write_json(path, asdict(self))

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def post(self, action: str, params: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body of the answer, whatever it is. `AwsError` Unavailable when the books do not answer."""
        form = urlencode({"Action": action, "Version": API_VERSION, **params})
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "Authorization": self._authorization,
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

    @property
    def _authorization(self) -> str:
        """Whose records, of which service and region; the books check no signature."""
        credential = f"{self.account}/20250101/{REGION_NAME}/ec2/aws4_request"
        return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"

    def call(self, action: str, params: Mapping[str, str]) -> Document:
        """The answer of a successful call, whole unless it asks for a page; their own error as `AwsError` else.

        Of several filters of the same name they keep the last one only: then they are asked several times.
        """
        several = one_of_each(params)
        if len(several) > 1:
            whole = [{k: v for k, v in each.items() if k not in ("MaxResults", "NextToken")} for each in several]
            first, *others = (self._all(action, each) for each in whole)
            for other in others:
                first.intersect(other)
            return first
        return self._all(action, params)

    def _all(self, action: str, params: Mapping[str, str]) -> Document:
        document = self._page(action, params)
        if "MaxResults" in params:
            return document
        while token := document.root.findtext("nextToken"):  # they page without being asked to, EC2 does not
            further = self._page(action, {**params, "NextToken": token})
            document.append(further)
        return document

    def _page(self, action: str, params: Mapping[str, str]) -> Document:
        status, body = self.post(action, params)
        if status != 200:
            error = _error_of(status, body)
            broke = error.status >= 500 and error.code != "Unavailable"
            raise BooksFailed(error.code, error.message, error.status) if broke else error
        return Document(body)


def _error_of(status: int, body: bytes) -> AwsError:
    try:
        root = Document(body).root
    except ET.ParseError:
        return AwsError("InternalError", "An internal error has occurred", 500)
    code, message = root.findtext(".//Code"), root.findtext(".//Message")
    return AwsError(code or "InternalError", message or "An internal error has occurred", status)


def place_file(topology: Topology) -> Path:
    """Where the books of a cell say that they answer, and where."""
    return topology.state_dir / "books.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.region.books", description="the records of the region")
    parser.add_argument("--place-file", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    from moto.server import ThreadedMotoServer  # slow to import: only here

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    Books(host="127.0.0.1", port=port).write(options.place_file)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
