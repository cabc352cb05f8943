"""Addresses of servers as they may be shown: in logs, in files of a run, to other people."""

from __future__ import annotations

from urllib.parse import urlsplit


def shown(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
