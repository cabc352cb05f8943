"""KServe's V1 protocol, which is TensorFlow Serving's: `instances` in, `predictions` out.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol and
https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.json_reply import read_object
from imagebatch.model_apis.pinning import pictures
from imagebatch.model_apis.scores import row_of
from imagebatch.model_apis.served import OF_AN_IMAGE, Rows, Said, ServedModel
from imagebatch.settings import ApiSettings


def connect(settings: ApiSettings, model: str, version: str) -> KServeV1:
    """Return a client for one model."""
    return KServeV1(settings, model, version)


class KServeV1(ServedModel):
    """A client for one model of one server that speaks KServe's V1 protocol."""

    def __init__(self, settings: ApiSettings, model: str, version: str) -> None:
        super().__init__(settings, model, version)
        self._path = f"/v1/models/{model}" + (f"/versions/{version}" if version else "")
        self._tells = False

    @override
    def said(self) -> Said:
        """Read the version where the protocol has it, and the rest where a reply may tell it.

        V1 has no metadata; our predictor names labels, digest and version in each reply (deploy/kserve/).
        """
        served = self._version or _version_of(self._status())
        told = self._told()
        labels = told.get("labels")
        named = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        return Said(
            version=served or str(told.get("version") or ""),
            labels=tuple(labels) if isinstance(labels, list) and named else (),
            digest=str(told.get("digest") or ""),
        )

    @override
    def require_route_ready(self) -> None:
        status = self._status()
        states = [str(entry.get("state")) for entry in _versions(status)]
        if str(status.get("ready", "True")) == "True" and (not states or "AVAILABLE" in states):
            return
        raise ApiFaultError(Fault.OVERLOADED, f"not ready: {str(dict(status))[:160]}")

    @override
    def rows(self, images: Sequence[ImagePayload]) -> Rows:
        reply = self._replied(images)
        return Rows(predictions(reply, self.card.output), str(reply.get("digest") or ""))

    def _replied(self, images: Sequence[ImagePayload]) -> Mapping[str, Any]:
        files = [{"b64": base64.b64encode(image.data).decode()} for image in images]
        name = self.card.input
        instances = [{name: file} for file in files] if name else files
        return read_object(self.ask("POST", f"{self._path}:predict", json={"instances": instances}).content)

    def _told(self) -> Mapping[str, Any]:
        """Return a reply to one of the fixed images; nothing of a model that cannot read them.

        Raises:
            ApiFaultError: There is no reply; or a model that told what it is now fails.
        """
        failed: ApiFaultError | None = None
        for picture in pictures():
            try:
                reply = self._replied([picture])
            except ApiFaultError as fault:
                if fault.fault not in OF_AN_IMAGE:
                    raise
                failed = fault
            else:
                self._tells = self._tells or "digest" in reply
                return reply
        if failed and self._tells:
            raise failed
        return {}

    def _status(self) -> Any:
        return read_object(self.ask("GET", self._path).content)


def predictions(reply: Any, output: str) -> list[Any]:
    """Return a row per image of the field `predictions`.

    Raises:
        ApiFaultError: There is no such field, or no answers are in it.
    """
    found = reply.get("predictions")
    if not isinstance(found, list):
        raise ApiFaultError(Fault.BAD_REPLY, f"no predictions: {str(reply)[:80]!r}")
    return [row_of(item, output) for item in found]


def _versions(status: Any) -> list[Any]:
    """Return TensorFlow Serving's states; of another server, none."""
    found = status.get("model_version_status")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _version_of(status: Any) -> str:
    """Name the version that answers where none is asked for: the only one that is there."""
    there = [str(entry.get("version")) for entry in _versions(status) if entry.get("state") == "AVAILABLE"]
    return there[0] if len(there) == 1 else ""
