"""Images and runs in Azure's Blob Storage: Azurite, Microsoft's own server of its API, from npm."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from adlfs import AzureBlobFileSystem  # type: ignore[import-untyped]  # it ships no types

from tests.imagebatch.conftest import call, runs, server
from tests.support.calls import Call
from tests.support.children import Child
from tests.support.stores import require_a_run, require_one_creator
from tools.loopback import free_ports
from tools.paths import ROOT

__all__ = ["call", "runs", "server"]  # fixtures

_AZURITE = ROOT / "var" / "azurite"
_VERSION = "3.37.0"
# Azurite knows one account, whose key its documentation prints.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module")
def program() -> Path:
    """Azurite, installed once below var/."""
    found = _AZURITE / "node_modules" / ".bin" / "azurite-blob"
    npm = shutil.which("npm")
    if not found.exists():
        if npm is None:
            pytest.skip("no npm here to install Azurite with")
        subprocess.run(
            [npm, "install", "--prefix", _AZURITE, f"azurite@{_VERSION}", "--no-audit", "--no-fund"],
            check=True,
            capture_output=True,
        )
    return found


@pytest.fixture
def azure(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureBlobFileSystem]:
    """The containers `data` and `claims` of a server on loopback."""
    (port,) = free_ports(1)
    flags = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(tmp_path / "azurite")]
    flags += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    node = shutil.which("node")
    assert node
    running = Child([node, str(program), *flags], environment={}, log=tmp_path / "azurite.log")
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not _listens(port):
        time.sleep(0.1)
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;",
    )
    AzureBlobFileSystem.clear_instance_cache()  # it would go on with the server of an earlier test
    store = AzureBlobFileSystem()
    store.mkdir("data")
    store.mkdir("claims")
    yield store
    running.kill()
    AzureBlobFileSystem.clear_instance_cache()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.timeout(600)
def test_one_creator(azure: AzureBlobFileSystem) -> None:
    """Fencing rests on it."""
    assert azure.exists("claims")
    require_one_creator("az://claims/runs")


@pytest.mark.timeout(600)
def test_a_run(call: Call, azure: AzureBlobFileSystem, runs: Path) -> None:
    """Listed, scored, certified and proven there, with the bytes of the same run on a disk."""
    require_a_run(call, "az://data/deep", runs, lambda key, data: azure.pipe_file(f"data/deep/{key}", data))
