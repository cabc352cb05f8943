"""Addresses that are shown hold nothing secret."""

from __future__ import annotations

import pytest
from imagebatch.model_apis.address import shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://me:secret@models.example/v1/", "https://models.example/v1"),
        ("https://me:se@cret@models.example:99999", "https://models.example:99999"),
        ("http://[::1]:8080?key=secret#secret", "http://[::1]:8080"),
    ],
)
def test_what_is_left_of_an_address(url: str, expected: str) -> None:
    """User, password, query and fragment are gone; what is no port or an IPv6 address does no harm."""
    assert shown(url) == expected
