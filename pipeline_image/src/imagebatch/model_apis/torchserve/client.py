"""TorchServe's inference API, as the handler in `handlers/` speaks it (docs/reference/wire.md)."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests
from urllib3.exceptions import ReadTimeoutError

from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ConfigurationError, UnknownModelError, one_line
from imagebatch.model_apis.base import PROBE, ApiFaultError, Fault, ImagePayload, ModelApi, Reply
from imagebatch.model_apis.credentials import Token, authorities, not_trusted, session_for, token_of
from imagebatch.model_apis.reply import asking_headers, opens_memory, parse_description, parse_reply
from imagebatch.model_apis.torchserve.keys import KeyFile
from imagebatch.model_apis.torchserve.shared_memory import SharedMemory
from imagebatch.settings import ApiSettings

Headers = Mapping[str, str]
Send = Callable[[], requests.Response]

_KEY_ATTEMPTS = 3


class NotSharedError(ApiFaultError):
    """The server cannot open this process's memory: the images must be sent."""


def connect(settings: ApiSettings, model: str, version: str) -> TorchServe:
    """Return a client for one model."""
    trusted = authorities(settings)
    keys = KeyFile(settings.key_file, settings.management_url, trusted) if settings.key_file else None
    token = None if keys else token_of(settings)  # of what stands before a server that asks for no keys
    return TorchServe(
        settings.api_url,
        model,
        version,
        keys=keys,
        timeout=settings.request_timeout,
        shared_memory=settings.shared_memory,
        token=token,
        trusted=trusted,
    )


class TorchServe(ModelApi):
    """A client for one model of one TorchServe.

    Args:
        url: Inference API, for example `http://127.0.0.1:8080`.
        model: Name of the model.
        version: Its version; empty for the server's default.
        keys: Where keys come from; None if the server asks for none.
        timeout: Seconds before a request is given up, whether or not some of its answer has come.
        shared_memory: Whether images may be handed over by memory where the server can open it.
        token: What is sent where there are no keys; None: nothing.
        trusted: Path of the authorities that sign its certificate; empty: the public ones.
    """

    def __init__(
        self,
        url: str,
        model: str,
        version: str,
        *,
        keys: KeyFile | None = None,
        timeout: float = 120.0,
        shared_memory: bool = True,
        token: Token | None = None,
        trusted: str = "",
    ) -> None:
        self._url = f"{url.rstrip('/')}/predictions/{model}" + (f"/{version}" if version else "")
        self._asked = f"{model} {version}".strip()
        self._keys = keys
        self._token = token
        self._trusted = trusted
        self._timeout = timeout
        self._may_share = shared_memory
        self._shares = False  # until the server has opened what it was offered
        self._local = threading.local()

    def describe(self) -> ModelPin:
        """Return the served model's name, version, digest and labels.

        Also finds out whether the server can open this process's memory: whether it runs on this machine, for
        this user, outside a container, and with a handler that knows how.
        """
        offer = self._memory([])
        body = self._post(json={"describe": True} | ({"memory": offer.place} if offer else {})).content
        found = parse_description(body)
        self._shares = opens_memory(body)
        return found

    def ready(self) -> None:
        """Return if a worker answers a prediction.

        `/ping` stays healthy when no worker can load, and a description can be right where predictions fail.
        """
        self.predict([PROBE], 1)

    def predict(self, images: Sequence[ImagePayload], top_k: int) -> Reply:
        """Answer for every image, in order, from one request."""
        try:
            return self.prepared(images, top_k)()
        except NotSharedError:  # another server answers now, or the same one elsewhere
            self._shares = False
            return self.prepared(images, top_k)()

    def prepared(self, images: Sequence[ImagePayload], top_k: int) -> Callable[[], Reply]:
        """Return `predict` with its request made: each call sends it again, to measure the server alone."""
        headers = asking_headers(images, top_k)
        memory = self._memory([image.data for image in images]) if self._shares else None
        send = self._by_memory(images, headers, memory) if memory else self._by_body(images, headers)
        return lambda: parse_reply(send().content, images, top_k)

    def _memory(self, contents: Sequence[bytes]) -> SharedMemory | None:
        """Put the contents into memory that the server may open; None if unwanted or not available."""
        try:
            return SharedMemory(contents) if self._may_share else None
        except OSError:
            return None

    def _by_memory(self, images: Sequence[ImagePayload], headers: Headers, memory: SharedMemory) -> Send:
        sizes = [(image.key, len(image.data)) for image in images]
        return lambda: self._post(headers=headers, json={"memory": memory.place, "images": sizes})

    def _by_body(self, images: Sequence[ImagePayload], headers: Headers) -> Send:
        boundary = secrets.token_hex(16)
        body = _multipart(images, boundary)
        kind = {"Content-Type": f"multipart/mixed; boundary={boundary}"}
        return lambda: self._post(headers={**headers, **kind}, data=body)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = session_for(self._trusted)
        return session

    def _post(self, *, headers: Headers | None = None, **body: Any) -> requests.Response:
        """Post the request, and post again with another key if the first was refused."""
        for _ in range(_KEY_ATTEMPTS):
            key = self._keys.key("inference") if self._keys else ""
            proof = {"Authorization": f"Bearer {key}"} if key else self._token.header if self._token else {}
            response = self._send({**(headers or {}), **proof}, body)
            if not _key_refused(response):
                return self._checked(response)
            if self._token:
                if self._token.replaced(proof):
                    continue
                raise ConfigurationError("the model server refused the token; see --api-token-file")
            if self._keys is None:
                raise ConfigurationError("the model server wants a key: give its key_file.json by --key-file")
            self._keys.replace("inference", key)
        raise ConfigurationError("the model server refused the inference key; see --key-file")

    def _send(self, headers: Headers, body: Mapping[str, Any]) -> requests.Response:
        try:
            return self._session().post(
                self._url, headers=headers, timeout=self._timeout, allow_redirects=False, **body
            )
        except requests.ConnectTimeout as error:
            raise ApiFaultError(Fault.UNREACHABLE, one_line(error, 200)) from error
        except requests.RequestException as error:
            if refusal := not_trusted(str(error)):
                raise refusal from error
            # A body that ends too late is no Timeout to requests, which is all about the headers.
            if isinstance(error, requests.Timeout) or isinstance(
                next(iter(error.args), None), ReadTimeoutError
            ):
                raise ApiFaultError(Fault.TIMED_OUT, f"no answer in {self._timeout:g} s") from error
            raise ApiFaultError(Fault.UNREACHABLE, one_line(error, 200)) from error

    def _checked(self, response: requests.Response) -> requests.Response:
        status = response.status_code
        if status == requests.codes.ok:
            return response
        text = self._token.hidden(response.text) if self._token else response.text
        detail = f"HTTP {status} {one_line(text, 160)}"
        if status == requests.codes.bad_request and '"memory: ' in response.text:
            raise NotSharedError(Fault.BAD_REPLY, detail)
        if status == requests.codes.not_found:
            raise UnknownModelError(
                f"the model API does not serve {self._asked}: {detail}; see imagebatch models list"
            )
        raise ApiFaultError(_fault_of(response), detail, _retry_after(response))


def _multipart(images: Sequence[ImagePayload], boundary: str) -> bytes:
    """Return a body with one part per image, named by its key (docs/reference/wire.md)."""
    pieces: list[bytes] = []
    for image in images:
        head = f'--{boundary}\r\nContent-Disposition: attachment; name="{image.key}"\r\n\r\n'
        pieces += (head.encode(), image.data, b"\r\n")
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()])


def _key_refused(response: requests.Response) -> bool:
    # TorchServe answers a wrong key with 400, as it answers bad data; only the body tells them apart.
    refused = {requests.codes.bad_request, requests.codes.unauthorized, requests.codes.forbidden}
    if response.status_code not in refused:
        return False
    return "InvalidKeyException" in response.text or response.status_code != requests.codes.bad_request


def _fault_of(response: requests.Response) -> Fault:
    match response.status_code:
        case requests.codes.request_entity_too_large:
            return Fault.TOO_LARGE
        case requests.codes.too_many_requests:
            return Fault.OVERLOADED
        case requests.codes.service_unavailable:
            # A handler that raises answers 503 too: only the type in the body tells it from a full queue.
            raised = "InternalServerException" in response.text
            return Fault.WORKER_DIED if raised else Fault.OVERLOADED
        case 507:  # an idle worker was found dead; the next one is being started
            return Fault.OVERLOADED
        case status if status >= 500:  # noqa: PLR2004 (the class of server errors)
            return Fault.WORKER_DIED
        case _:
            return Fault.BAD_REPLY


def _retry_after(response: requests.Response) -> float:
    with contextlib.suppress(ValueError):
        return min(300.0, max(0.0, float(response.headers.get("Retry-After", "0"))))
    return 0.0
