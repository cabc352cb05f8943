"""Images and runs in Azure's Blob Storage: Azurite, Microsoft's own server of its API, from npm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from adlfs import AzureBlobFileSystem  # type: ignore[import-untyped]  # it ships no types
from imagebatch.runs.folder import open_run

from tests.imagebatch.conftest import call, runs, server
from tests.support.calls import Call
from tests.support.store_servers import StoreServer, running
from tests.support.stores import require_a_run, require_one_creator

__all__ = ["call", "runs", "server"]  # fixtures


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreServer]:
    """The containers `data` and `runs` of a server on loopback."""
    if shutil.which("npm") is None:
        pytest.skip("no npm here to install Azurite with")
    with running("az", tmp_path / "azurite") as store:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        AzureBlobFileSystem.clear_instance_cache()  # it would go on with the server of an earlier test
        yield store
    AzureBlobFileSystem.clear_instance_cache()


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("azure")
def test_one_creator() -> None:
    """Fencing rests on it."""
    require_one_creator("az://runs/claims")


@pytest.mark.timeout(600)
def test_a_run(call: Call, azure: StoreServer, runs: Path) -> None:
    """Listed, scored, certified and proven there, with the bytes of the same run on a disk."""
    require_a_run(call, "az://data/deep", runs, lambda key, data: azure.put(f"data/deep/{key}", data))


@pytest.mark.filterwarnings("ignore:Sending a large body")  # its client hands aiohttp a block as it is
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("azure")
def test_a_large_file_has_one_creator() -> None:
    """A file that is sent in blocks is refused like any other, and can be replaced after that."""
    run = open_run("az://runs", "large")
    first, second = (bytes([byte]) * (70 << 20) for byte in (1, 2))
    assert run.create("large", first)
    assert not run.create("large", second)
    assert run.read("large") == first
    run.write("large", second)
    with run.reading("large") as stream:
        assert stream.read() == second
