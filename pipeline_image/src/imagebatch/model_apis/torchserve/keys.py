"""TorchServe's keys: read from key_file.json, again when one is refused, renewed before they expire."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import requests

from imagebatch.errors import ConfigurationError
from imagebatch.log import get_logger
from imagebatch.model_apis.credentials import session_for

log = get_logger()

Kind = Literal["inference", "management"]

# A key with less life than this is replaced before a request is sent with it.
RENEW_BEFORE_SECONDS = 30.0
# If the management API cannot be reached, ask it again only after this many seconds.
_RENEWAL_PAUSE = 10.0
_RENEWAL_TIMEOUT = 3.0
_READ_ATTEMPTS = 5
_READ_PAUSE = 0.3


@dataclass(frozen=True, slots=True)
class Key:
    """A key and when it ends; one without an end is taken to live until it is refused."""

    value: str
    expires: datetime | None

    @property
    def short_lived(self) -> bool:
        """Whether it ends too soon to be used for one more request."""
        if self.expires is None:
            return False
        return (self.expires - datetime.now(UTC)).total_seconds() < RENEW_BEFORE_SECONDS


class KeyFile:
    """The keys of one TorchServe. Safe to use from several threads.

    Args:
        path: `key_file.json`, which TorchServe writes (readable by its owner only).
        management_url: Where a new key is asked for; the server puts it into the same file.
        trusted: Path of the authorities that sign its certificate; empty: the public ones.
    """

    def __init__(self, path: str, management_url: str, trusted: str = "") -> None:
        self._path = Path(path)
        self._management_url = management_url.rstrip("/")
        self._trusted = trusted
        self._lock = threading.Lock()
        self._keys: dict[Kind, Key] = {}
        self._asked = float("-inf")

    def key(self, kind: Kind) -> str:
        """Return the key for one of the two APIs.

        Raises:
            ConfigurationError: The file is missing, unreadable or holds no such key.
        """
        with self._lock:
            held = self._keys.get(kind)
            if held is None or held.short_lived:
                held = self._read(kind)
                if held.short_lived:
                    held = self._renewed(kind)
                self._keys[kind] = held
            return held.value

    def replace(self, kind: Kind, refused: str) -> None:
        """Find another key than the refused one: in the file, else by asking for a new one."""
        with self._lock:
            held = self._keys.get(kind)
            if held is not None and held.value != refused:
                return  # another thread has found one meanwhile
            found = self._read(kind)
            self._asked = float("-inf") if found.value == refused else self._asked
            self._keys[kind] = found if found.value != refused else self._renewed(kind)

    def _read(self, kind: str) -> Key:
        for attempt in range(_READ_ATTEMPTS):
            try:
                entry = json.loads(self._path.read_text("utf-8"))[kind]
                ends = entry.get("expiration time")
                return Key(str(entry["key"]), datetime.fromisoformat(ends) if ends else None)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                if attempt == _READ_ATTEMPTS - 1:
                    raise ConfigurationError(
                        f"--key-file {self._path}: no {kind} key in it; is TorchServe running?"
                    ) from error
            time.sleep(_READ_PAUSE)  # the server may be writing it just now
        raise AssertionError  # the last attempt returns or raises

    def _renewed(self, kind: Kind) -> Key:
        if time.monotonic() - self._asked >= _RENEWAL_PAUSE:
            self._asked = time.monotonic()
            self._ask_for(kind)
        return self._read(kind)

    def _ask_for(self, kind: Kind) -> None:
        # The answer's body is empty: the new key is only in the file.
        try:
            with session_for(self._trusted) as session:
                response = session.get(
                    f"{self._management_url}/token",
                    params={"type": kind},
                    headers={"Authorization": f"Bearer {self._read('API').value}"},
                    timeout=_RENEWAL_TIMEOUT,
                    allow_redirects=False,
                )
            log.info("key renewed", kind=kind, status=response.status_code)
        except (requests.RequestException, ConfigurationError) as error:
            log.warning("key not renewed", kind=kind, error=str(error))
