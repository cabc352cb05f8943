"""What of an address may be shown."""

from __future__ import annotations

import pytest
from imagebatch.contracts.addresses import public_name, without_permission


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("https://h.example/a/x.jpg?X-Amz-Signature=ab#f", "https://h.example/a/x.jpg"),
        ("https://user:secret@h.example:8/x.jpg", "https://h.example:8/x.jpg"),
        ("HTTPS://h.example/x.jpg?id=1", "HTTPS://h.example/x.jpg"),
        ("az://c/x.jpg?sv=2026&sig=ab", "az://c/x.jpg"),
        ("zip:https://h.example/a.zip?sig=ab!/x.jpg?at=1", "zip:https://h.example/a.zip!/x.jpg?at=1"),
        ("tar:s3://b/a.tar!/sig=?x.jpg?at=1", "tar:s3://b/a.tar!/sig=?x.jpg?at=1"),
        ("s3://b/what?.jpg", "s3://b/what?.jpg"),
        ("a?b#c.jpg", "a?b#c.jpg"),
        ("file:///a%3Fsig=b.jpg", "file:///a%3Fsig=b.jpg"),
    ],
)
def test_a_public_name_has_no_secret(uri: str, name: str) -> None:
    """Queries, fragments and logins of web addresses, and signatures of any, are left out."""
    assert public_name(uri) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h.example/x.jpg?w=200", "https://h.example/x.jpg?w=200"),
        ("https://h.example/x.jpg?w=200&Signature=ab", "https://h.example/x.jpg"),
        ("https://me:pw@h.example/x.jpg", "https://h.example/x.jpg"),
        ("zip:https://h.example/a.zip?sig=ab!/x.jpg", "zip:https://h.example/a.zip!/x.jpg"),
        ("file:///photos/a%3Fsig=1.jpg", "file:///photos/a%3Fsig=1.jpg"),
        ("what?sig=this", "what?sig=this"),
        ("", ""),
    ],
)
def test_only_what_gives_permission_is_taken_away(text: str, shown: str) -> None:
    """An address that anyone may ask for stays as it is, and so does what is no address."""
    assert without_permission(text) == shown
