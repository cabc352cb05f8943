"""How a client proves to a model server who it is, and the server to the client: a token, authorities.

The token stands in a file or a variable, is sent in a header, and is never part of a message, a log or a
run's files. TorchServe's own keys, which it writes and renews itself, are another matter (`torchserve`).
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from imagebatch.deadline import BoundedSession
from imagebatch.errors import ConfigurationError
from imagebatch.settings import ApiSettings

VARIABLE = "IMAGEBATCH_API_TOKEN"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750: it has no colon, so that a header is told from it
_HEADER = re.compile(r"([A-Za-z0-9-]+):[ \t]*([\x21-\x7e]+(?:[ \t][\x21-\x7e]+)*)")
_NOT_TRUSTED = "certificate_verify_failed"


class Token:
    """What is sent with each request. Safe to use from several threads.

    Args:
        path: A file with a token, or with a whole header (`X-API-Key: …`); empty: the variable holds it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._header = self._read()

    @property
    def header(self) -> dict[str, str]:
        """The header: `Authorization: Bearer …`, or the one that the file holds."""
        return self._header

    def replaced(self, refused: dict[str, str]) -> bool:
        """Read the file again; tell whether there is another header now than the one that was refused."""
        with self._lock:
            if self._header == refused:
                self._header = self._read()
            return self._header != refused

    def hidden(self, text: str) -> str:
        """Return what a server says, without the token if it repeats that."""
        (value,) = self._header.values()
        return text.replace(value, "…").replace(value.rpartition(" ")[2], "…")

    def _read(self) -> dict[str, str]:
        where = f"--api-token-file {self._path}" if self._path else VARIABLE
        try:
            text = Path(self._path).read_text("ascii") if self._path else os.environ[VARIABLE]
        except OSError as error:
            raise ConfigurationError(f"{where}: {error.strerror}") from error
        except UnicodeDecodeError:
            text = ""  # not even in the cause may a secret be seen
        if found := _HEADER.fullmatch(text.strip()):
            return {found[1]: found[2]}
        if _TOKEN.fullmatch(text.strip()):
            return {"Authorization": f"Bearer {text.strip()}"}
        raise ConfigurationError(
            f"{where} holds neither one token nor one header, as X-API-Key: and its value"
        )


def token_of(settings: ApiSettings) -> Token | None:
    """Return the token for one server; None if there is none.

    Raises:
        ConfigurationError: It cannot be read, or others on the way to the server could read it.
    """
    if not settings.api_token_file and not os.environ.get(VARIABLE):
        return None
    url = urlsplit(settings.api_url)
    encrypted = url.scheme in {"https", "grpcs"}
    if not (encrypted or settings.api_token_in_clear or _is_here(url.hostname or "")):
        better = "https" if url.scheme == "http" else "grpcs"
        raise ConfigurationError(
            f"the token would go to {url.hostname} unencrypted: use {better}:// in --api-url, or say"
            " --api-token-in-clear"
        )
    return Token(settings.api_token_file)


def authorities(settings: ApiSettings) -> str:
    """Return the path of the authorities that are trusted; empty: the public ones.

    Raises:
        ConfigurationError: There are none in the file.
    """
    path = settings.api_ca_file
    if path:
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError is one
            said = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "no PEM"
            raise ConfigurationError(f"--api-ca-file {path}: {said}") from error
    return path


def session_for(trusted: str) -> BoundedSession:
    """Return a session that trusts these authorities; the public ones, where there are none."""
    session = BoundedSession()
    if trusted:
        session.verify = trusted
    return session


def not_trusted(text: str) -> ConfigurationError | None:
    """Tell a certificate that is not trusted, which no waiting mends, from other troubles of a connection."""
    if _NOT_TRUSTED not in text.lower():
        return None
    return ConfigurationError(
        "the model server's certificate is not trusted: give the file of its authority by --api-ca-file"
    )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
