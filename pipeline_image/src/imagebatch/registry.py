"""MLflow's model registry over its REST API: which released version of a model an alias names.

`imagebatch-train release` keeps two tags with each version: the version on the model server, and the digest
that this server tells. MLflow's own client package would triple the image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from imagebatch.deadline import BoundedSession
from imagebatch.errors import ConfigurationError, ModelApiUnavailableError, one_line

CHAMPION = "champion"
"""The alias of the version that batches use."""
SERVED_VERSION, DIGEST = "imagebatch.version", "imagebatch.digest"
"""Tags of a registered version."""
_REFERENCE = re.compile(r"models:/(?P<model>[^/@]+)@(?P<alias>[^/@]+)")
_TIMEOUT = (3.05, 20)  # seconds: connecting, answering


@dataclass(frozen=True, slots=True)
class Reference:
    """A model by alias, as `models:/solar-cells@champion` writes it."""

    model: str
    alias: str

    @property
    def is_champion(self) -> bool:
        """Whether it stands for what the model server has as its default, too."""
        return self.alias == CHAMPION


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a registered model.

    Attributes:
        number: Of the registry, from 1.
        version: On the model server.
        digest: That the model server tells of it.
    """

    number: str
    version: str
    digest: str


def parse_reference(text: str) -> Reference | None:
    """Read a reference; None of a plain name."""
    found = _REFERENCE.fullmatch(text)
    return Reference(found["model"], found["alias"]) if found else None


def mlflow_session() -> requests.Session:
    """Return a session with the login that `MLFLOW_TRACKING_…` holds, if any."""
    session = BoundedSession()
    token, user = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("TOKEN", "USERNAME"))
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    elif user:
        session.auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    return session


class RegistryRefusedError(ConfigurationError):
    """The registry answers, and does not let this client look."""


class Registry:
    """A client for one registry.

    Args:
        server: `http://…` of an MLflow server.
    """

    def __init__(self, server: str) -> None:
        self._base = f"{server.rstrip('/')}/api/2.0/mlflow"

    def named(self, reference: Reference) -> Registered | None:
        """Return the version that an alias names; None where there is no such model or alias.

        Raises:
            ModelApiUnavailableError: The registry does not answer.
            RegistryRefusedError: It refuses.
            ConfigurationError: The version was not released by `imagebatch-train release`.
        """
        wanted = {"name": reference.model, "alias": reference.alias}
        reply = self._ask("GET", "registered-models/alias", params=wanted)
        if reply.status_code == requests.codes.not_found or _no_alias(reply):
            return None
        return _registered(_content(reply).get("model_version"))

    def move(self, reference: Reference, version: str) -> None:
        """Let an alias name the registered version that is served as `version`.

        Raises:
            ModelApiUnavailableError: The registry does not answer.
            ConfigurationError: It refuses, or has no such version.
        """
        wanted = {"filter": f"name='{reference.model}'", "max_results": "1000"}
        found = _content(self._ask("GET", "model-versions/search", params=wanted)).get("model_versions") or []
        numbers = [int(one["version"]) for one in found if _tags(one).get(SERVED_VERSION) == version]
        if not numbers:
            raise ConfigurationError(f"the registry has no version of {reference.model} served as {version}")
        body = {"name": reference.model, "alias": reference.alias, "version": str(max(numbers))}
        _content(self._ask("POST", "registered-models/alias", json=body))

    def _ask(self, method: str, path: str, **content: Any) -> requests.Response:
        try:
            with mlflow_session() as session:
                reply = session.request(method, f"{self._base}/{path}", timeout=_TIMEOUT, **content)
        except requests.RequestException as error:
            raise ModelApiUnavailableError(
                f"no answer from the model registry at {self._base}: {one_line(error, 160)}"
            ) from error
        if reply.status_code >= requests.codes.internal_server_error:
            raise ModelApiUnavailableError(
                f"the model registry failed: HTTP {reply.status_code} {one_line(reply.text, 160)}"
            )
        return reply


def _no_alias(reply: requests.Response) -> bool:
    """Tell whether MLflow refuses an alias because the model has none of this name: it answers 400."""
    return reply.status_code == requests.codes.bad_request and "not found" in reply.text


def _content(reply: requests.Response) -> dict[str, Any]:
    try:
        content = reply.json() if reply.ok else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise RegistryRefusedError(
            f"the model registry refused: HTTP {reply.status_code} {one_line(reply.text, 160)};"
            " see --tracking-uri and MLFLOW_TRACKING_USERNAME"
        )
    return content


def _tags(version: Mapping[str, Any]) -> dict[str, str]:
    return {str(tag.get("key")): str(tag.get("value")) for tag in version.get("tags") or []}


def _registered(version: Any) -> Registered:
    tags = _tags(version or {})
    if SERVED_VERSION not in tags or DIGEST not in tags:
        raise ConfigurationError(
            "the registry's version lacks the tags of a release: release it with imagebatch-train release"
        )
    return Registered(str(version["version"]), tags[SERVED_VERSION], tags[DIGEST])
