"""A real archive and workers that have loaded it, for all tests of model APIs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from imagebatch.model_apis.local.pool import LocalModel

from tests.support.handler_archives import write_archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def model(archive: Path) -> Iterator[LocalModel]:
    """Two workers that have loaded the archive."""
    pool = LocalModel(archive, "solar-cells", "", workers=2, timeout=60)
    pool.describe()
    yield pool
    pool.close()
