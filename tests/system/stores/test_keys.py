"""Odd keys: each is scored with its own bytes, or is one row that says why not, as the page tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.stores.keys import KEYS, found, published


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_the_page_tells_what_becomes_of_each_key(scheme: str, tmp_path: Path) -> None:
    """`python -m tests.system.stores.keys` writes its table."""
    outcomes = found(scheme, tmp_path / scheme)
    assert not [key for key, outcome in outcomes.items() if outcome.startswith("WRONG")]
    assert {what: outcomes[key] for what, key in KEYS.items()} == published(scheme)
