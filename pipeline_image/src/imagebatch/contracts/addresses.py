"""What an address is, and what of it may be shown: some carry the permission to read what they name."""

from __future__ import annotations

import re

WEB = ("http://", "https://")

# Two letters at least: `C:/photos` is no URI.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_MEMBER = re.compile(r"(zip|tar):(?!//)(.*)(!/.*)", re.DOTALL)
# Parameters by which storages sign an address; who has such an address can read what it names.
_SIGNED = re.compile(
    r"[?&;](x-(amz|goog|oss|cos|obs|ms)-[a-z-]+|sig|signature|token|[a-z_-]*(token|secret|password|api_?key)"
    r"|awsaccesskeyid|googleaccessid|key-pair-id|policy|hdnea|auth|hmac|jwt)=",
    re.IGNORECASE,
)


def scheme_of(uri: str) -> str:
    """Return a URI's scheme in small letters; empty for a path."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""


def is_web(uri: str) -> bool:
    """Tell whether a URI names something on a web server."""
    return uri.lower().startswith(WEB)


def public_name(uri: str) -> str:
    """Return a URI without what may be a secret: query, fragment and login of a web address or signed URI."""
    if member := _MEMBER.fullmatch(uri):
        return f"{member[1]}:{public_name(member[2])}{member[3]}"
    if not is_web(uri) and not (scheme_of(uri) not in {"", "file"} and _SIGNED.search(uri)):
        return uri
    scheme, rest = uri.split("://", 1)
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


def without_permission(text: str) -> str:
    """Return any text but an address that carries its own permission: of that, what may be shown."""
    return public_name(text) if _is_signed(text) else text


def _is_signed(text: str) -> bool:
    if member := _MEMBER.fullmatch(text):
        return _is_signed(member[2])
    if scheme_of(text) in {"", "file"}:
        return False
    return bool(_SIGNED.search(text)) or (is_web(text) and "@" in text.split("://", 1)[1].partition("/")[0])
