"""TorchServe's management API: which models are served, with how many workers."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import requests

from imagebatch.errors import (
    ConfigurationError,
    ImagebatchError,
    ModelApiUnavailableError,
    UnknownModelError,
    one_line,
)
from imagebatch.model_apis.credentials import authorities, not_trusted, session_for
from imagebatch.model_apis.torchserve.keys import KeyFile
from imagebatch.model_apis.torchserve.serving import Served
from imagebatch.model_apis.torchserve.worker_log import WorkerLog
from imagebatch.settings import ModelsSettings

# Seconds before asking again. A server whose cores are all busy answers 500 to what it could not end in time,
# such as "Interrupted while cleaning resources", and may leave the model without workers.
PAUSES = (2.0, 5.0)
_BETWEEN_LOOKS = 0.2  # seconds
# As in handlers/config.properties: an archive runs code, and only the model store's are to run.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# TorchServe keeps a model whose workers it could not start.
_REGISTERED = re.compile(r"workers for model:? (?P<model>[\w.-]+)(?:,? version:? (?P<version>[\w.]+))?")


class _ServerFailedError(ModelApiUnavailableError):
    """The management API answered, with an error of its own."""


class Management:
    """A client for one TorchServe's management API.

    Args:
        settings: Where it is, its keys, and how long to wait for an answer.
    """

    def __init__(self, settings: ModelsSettings) -> None:
        self._url = settings.management_url.rstrip("/")
        self._key_file = settings.key_file
        self._trusted = authorities(settings)
        self._keys = KeyFile(settings.key_file, self._url, self._trusted) if settings.key_file else None
        self._timeout = settings.request_timeout

    def list(self) -> Any:
        """Return names and archives of the models."""
        return _picked(self._ask("GET", "/models"), "models")

    def describe(self, model: str, version: str) -> Any:
        """Return a model's workers, and the description that its handler gives."""
        return _picked(self._ask("GET", _path(model, version), customized="true"), 0)

    def default(self, model: str) -> Served:
        """Return the version that requests without one go to.

        Raises:
            UnknownModelError: No version of the model is served.
        """
        return _served(_picked(self._ask("GET", _path(model, "")), 0))

    def serves(self, model: str, version: str) -> bool:
        """Tell whether a version is registered."""
        try:
            self._ask("GET", _path(model, version))
        except UnknownModelError:
            return False
        return True

    def register(self, archive: str, workers: int) -> Any:
        """Load an archive of the model store, beside the versions that are served, and wait for its workers.

        A version that cannot be loaded is not registered afterwards; the others go on.

        Raises:
            ConfigurationError: There is no such archive, or its workers cannot start: their own reason.
            ModelApiUnavailableError: The server failed, and no reason can be read.
        """
        if not _PLAIN_NAME.fullmatch(archive):
            raise ConfigurationError(
                f"models register needs --archive NAME, a file directly in the server's model store (letters,"
                f" digits, `.`, `_`, `-`), not {one_line(archive, 80)!r}"
            )
        log = WorkerLog(self._key_file)
        asked = {"url": archive, "initial_workers": str(workers), "synchronous": "true"}
        try:
            return self._ask("POST", "/models", **asked)
        except UnknownModelError as error:
            raise ConfigurationError(f"no archive {archive} in the server's model store: {error}") from error
        except _ServerFailedError as error:
            raise self._not_registered(error, log) from error

    def _not_registered(self, error: _ServerFailedError, log: WorkerLog) -> ImagebatchError:
        """Take back what a registration left that failed, and say why it did."""
        left = _REGISTERED.search(str(error))
        undone = "it is not registered"
        if left:
            try:
                self.unregister(left["model"], left["version"] or "")
            except UnknownModelError:
                pass
            except ImagebatchError as remaining:
                undone = f"it stays registered ({one_line(remaining, 100)})"
        if left and (said := log.last_error(left["model"], left["version"] or "")):
            return ConfigurationError(f"the model cannot be loaded: {said}; {undone}")
        return _ServerFailedError(
            f"{one_line(error, 200)}; {undone}; what its worker said is in the server's model_log.log"
        )

    def make_default(self, model: str, version: str) -> Any:
        """Let requests that name no version go to this one."""
        if not version:
            raise ConfigurationError("models set-default needs --model-version")
        return self._ask("PUT", f"{_path(model, version)}/set-default")

    def unregister(self, model: str, version: str) -> Any:
        """Unregister a model."""
        return self._insist("DELETE", _path(model, version))

    def scale(self, model: str, version: str, workers: int) -> Any:
        """Set a model's number of workers, and return when so many are ready, and no others are left.

        Raises:
            ModelApiUnavailableError: They are not after the request timeout.
        """
        count = str(workers)
        wanted = {"min_worker": count, "max_worker": count, "synchronous": "true"}
        answer = self._insist("PUT", _path(model, version), **wanted)
        self._await_workers(model, version, workers)
        return answer

    def _await_workers(self, model: str, version: str, workers: int) -> None:
        """Wait until a model has exactly so many workers, each ready: one that dies is begun again."""
        deadline = time.monotonic() + self._timeout
        while True:
            described = _picked(self._ask("GET", _path(model, version)), 0)
            found = [worker["status"] for worker in _picked(described, "workers")]
            ready = found.count("READY")
            if ready == len(found) == workers:
                return
            if time.monotonic() >= deadline:
                raise ModelApiUnavailableError(
                    f"{ready} of {workers} workers of {model} are ready after {self._timeout:.0f} s"
                    f" ({len(found)} are there); what they said is in the server's model_log.log"
                )
            time.sleep(_BETWEEN_LOOKS)

    def _insist(self, method: str, path: str, **parameters: str) -> Any:
        for pause in PAUSES:
            try:
                return self._ask(method, path, **parameters)
            except _ServerFailedError:
                time.sleep(pause)
        return self._ask(method, path, **parameters)

    def _ask(self, method: str, path: str, **parameters: str) -> Any:
        headers = {"Authorization": f"Bearer {self._keys.key('management')}"} if self._keys else {}
        try:
            with session_for(self._trusted) as session:
                response = session.request(
                    method,
                    self._url + path,
                    params=parameters,
                    headers=headers,
                    timeout=self._timeout,
                    allow_redirects=False,
                )
        except requests.RequestException as error:
            if refusal := not_trusted(str(error)):
                raise refusal from error
            raise ModelApiUnavailableError(f"no answer from {self._url}: {one_line(error, 200)}") from error
        return _content(response)


def _path(model: str, version: str) -> str:
    return f"/models/{model}" + (f"/{version}" if version else "")


def _picked(answer: Any, key: str | int) -> Any:
    try:
        return answer[key]
    except (KeyError, IndexError, TypeError) as error:
        raise _no_torchserve(answer) from error


def _served(described: Any) -> Served:
    return Served(
        version=str(_picked(described, "modelVersion")),
        archive=Path(str(_picked(described, "modelUrl"))).name,
    )


def _no_torchserve(answer: object) -> ConfigurationError:
    return ConfigurationError(
        f"this is no answer of TorchServe's management API: {one_line(answer, 80)}; see --management-url"
    )


def _content(response: requests.Response) -> Any:
    if response.ok:
        try:
            return response.json()
        except ValueError as error:
            raise _no_torchserve(response.text) from error
    text = f"HTTP {response.status_code} {one_line(response.text, 200)}"
    if response.status_code == requests.codes.not_found:
        raise UnknownModelError(f"the model server does not serve that: {text}")
    if response.status_code >= 500:  # noqa: PLR2004 (the class of server errors)
        raise _ServerFailedError(f"the management API failed: {text}")
    hint = ""
    if response.status_code == requests.codes.unauthorized or "InvalidKeyException" in response.text:
        hint = "; is --key-file right?"
    elif "default version" in response.text:
        hint = "; make another version the default first, with imagebatch models set-default --model-version"
    raise ConfigurationError(f"the management API refused: {text}{hint}")
