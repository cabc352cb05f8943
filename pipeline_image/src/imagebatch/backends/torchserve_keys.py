"""TorchServe's keys: read from key_file.json, again when one is refused, renewed when there is no other."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path

import requests

from imagebatch.errors import ConfigurationError
from imagebatch.log import get_logger

log = get_logger()

_READ_ATTEMPTS = 5
_READ_PAUSE = 0.3


class KeyFile:
    """The keys of one TorchServe. Safe to use from several threads.

    Args:
        path: `key_file.json`, which TorchServe writes (readable by its owner only).
        management_url: Where a new inference key is asked for; the server puts it into the same file.
    """

    def __init__(self, path: str, management_url: str) -> None:
        self._path = Path(path)
        self._management_url = management_url.rstrip("/")
        self._lock = threading.Lock()
        self._inference_key = ""

    def inference_key(self) -> str:
        """The key for predictions."""
        with self._lock:
            if not self._inference_key:
                self._inference_key = self.read("inference")
            return self._inference_key

    def management_key(self) -> str:
        """The key for the management API."""
        return self.read("management")

    def replace(self, refused: str) -> None:
        """Finds another inference key than the refused one: in the file, else by asking for a new one."""
        with self._lock:
            if self._inference_key != refused:
                return  # another thread has found one meanwhile
            self._inference_key = self.read("inference")
            if self._inference_key == refused:
                self._renew()
                self._inference_key = self.read("inference")

    def read(self, kind: str) -> str:
        """A key of a kind (`inference`, `management` or `API`) from the file.

        Raises:
            ConfigurationError: The file is missing, unreadable or holds no such key.
        """
        for attempt in range(_READ_ATTEMPTS):
            try:
                return str(json.loads(self._path.read_text("utf-8"))[kind]["key"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                if attempt == _READ_ATTEMPTS - 1:
                    raise ConfigurationError(
                        f"--key-file {self._path}: no {kind} key in it; is TorchServe running?"
                    ) from error
            time.sleep(_READ_PAUSE)  # the server may be writing it just now
        raise AssertionError("unreachable")

    def _renew(self) -> None:
        # The answer's body is empty: the new key is only in the file.
        with contextlib.suppress(requests.RequestException), requests.Session() as session:
            session.trust_env = False
            response = session.get(
                f"{self._management_url}/token",
                params={"type": "inference"},
                headers={"Authorization": f"Bearer {self.read('API')}"},
                timeout=10,
                allow_redirects=False,
            )
            log.info("inference key renewed", status=response.status_code)
