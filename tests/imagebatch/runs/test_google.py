"""Images and runs in Google Cloud Storage: fake-gcs-server, a real server of its API, from a wheel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read while gcsfs is imported: it would ask Google's other API for the kind of each bucket, for a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

from gcsfs import GCSFileSystem  # type: ignore[import-untyped]  # it ships no types
from imagebatch.runs.folder import open_run

from tests.support.calls import Call
from tests.support.store_servers import StoreServer, running
from tests.support.stores import require_a_run, require_one_creator


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreServer]:
    """The buckets `data` and `runs` of a server on loopback."""
    with running("gs", tmp_path / "google") as store:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        GCSFileSystem.clear_instance_cache()  # it would go on with the server of an earlier test
        yield store
    GCSFileSystem.clear_instance_cache()


@pytest.mark.usefixtures("google")
def test_one_creator() -> None:
    """Fencing rests on it."""
    require_one_creator("gs://runs/claims")


def test_a_run(call: Call, google: StoreServer, runs: Path) -> None:
    """Listed, scored, certified and proven there, with the bytes of the same run on a disk."""
    require_a_run(call, "gs://data/deep", runs, lambda key, data: google.put(f"data/deep/{key}", data))


@pytest.mark.filterwarnings("ignore:Sending a large body")  # gcsfs hands aiohttp a piece as it is
@pytest.mark.usefixtures("google")
def test_a_large_file_has_one_creator() -> None:
    """A file that is sent in pieces is refused like any other, and can be replaced after that."""
    run = open_run("gs://runs", "large")
    first, second = (bytes([byte]) * (6 << 20) for byte in (1, 2))
    assert run.create("large", first)
    assert not run.create("large", second)
    assert run.read("large") == first
    run.write("large", second)
    assert run.read("large") == second
