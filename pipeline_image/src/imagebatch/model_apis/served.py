"""What model servers of any protocol have in common: HTTP, faults, labels and a digest for the run.

A protocol is a class of `ServedModel` with three methods: what the server says of its model, whether its own
route calls it ready, and a row per image.
"""

from __future__ import annotations

import contextlib
import re
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import requests
from typing_extensions import override
from urllib3.exceptions import ReadTimeoutError

from imagebatch.contracts.answers import Answer
from imagebatch.contracts.records import HeadKind, ModelPin
from imagebatch.errors import ConfigurationError, UnknownModelError, one_line
from imagebatch.heads import head_of
from imagebatch.log import get_logger
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload, ModelApi, Reply
from imagebatch.model_apis.card import ModelCard, read_card
from imagebatch.model_apis.credentials import authorities, not_trusted, session_for, token_of
from imagebatch.model_apis.pinning import alike, digest_of, pictures
from imagebatch.model_apis.pixels.declared import Pixels
from imagebatch.model_apis.scores import NoProbabilitiesFaultError, Row, checked
from imagebatch.settings import ApiSettings

log = get_logger()

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# How far a model's answers to the same images may lie apart within one process.
_TOLERANCE = 0.02
# How often a fixed image is asked about before the model is taken to refuse it.
_TRIES = 3
OF_AN_IMAGE = {Fault.WORKER_DIED, Fault.BAD_REPLY}
_SERVER_ERRORS = 500
_REFUSED = {requests.codes.unauthorized, requests.codes.forbidden}
_FAULTS = {
    requests.codes.not_found: Fault.OVERLOADED,  # it did serve the model: the server loads it again
    requests.codes.request_entity_too_large: Fault.TOO_LARGE,
    requests.codes.too_many_requests: Fault.OVERLOADED,
    requests.codes.service_unavailable: Fault.OVERLOADED,
    requests.codes.bad_gateway: Fault.UNREACHABLE,
    requests.codes.gateway_timeout: Fault.TIMED_OUT,
}
_LONGEST_PAUSE = 300.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a server says of its model; empty where it says nothing.

    `pixels` is what the user says, where the server takes pixels and they are made here.
    """

    version: str = ""
    labels: tuple[str, ...] = ()
    digest: str = ""
    engine: str = ""
    pixels: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one request, in order, and the digest that the reply carries, if it carries one."""

    rows: Sequence[Row]
    digest: str = ""


class ServedModel(ModelApi):
    """A model behind HTTP. Safe to call from several threads.

    Args:
        settings: Where the server is, how long to wait, and the model card.
        model: Name of the model.
        version: Its version; empty for the server's default.

    Attributes:
        token: What is sent with each request; None: nothing.
        trusted: Path of the authorities that sign its certificate; empty: the public ones.

    Raises:
        ConfigurationError: The model card, the token or the authorities cannot be read.
    """

    def __init__(self, settings: ApiSettings, model: str, version: str) -> None:
        self._url = settings.api_url.rstrip("/")
        self._model = model
        self._version = version
        self._timeout = settings.request_timeout
        self._card = read_card(settings.model_card, model)
        self.token, self.trusted = token_of(settings), authorities(settings)
        self._local = threading.local()
        self._pin: ModelPin | None = None
        self._first: list[npt.NDArray[np.float32]] = []
        self._named: set[str] = set()  # digests that replies to the fixed images carry
        self._made_here = False  # the pixels of images

    @property
    def card(self) -> ModelCard:
        """What the user says of the model."""
        return self._card

    @property
    def pinned(self) -> bool:
        """Whether the model has been described."""
        return self._pin is not None

    @property
    def pictures(self) -> tuple[ImagePayload, ...]:
        """The images that the model is known by, as it sees them."""
        return pictures(self._card.pixels.view.page if self._card.pixels else 1)

    @abstractmethod
    def said(self) -> Said:
        """Ask the server about its model."""

    @abstractmethod
    def require_route_ready(self) -> None:
        """Return if the server calls the model ready, or has no route to ask."""

    @abstractmethod
    def rows(self, images: Sequence[ImagePayload]) -> Rows:
        """Send one request."""

    @override
    def describe(self) -> ModelPin:
        said = self.said()
        labels = self._labels(said)
        version = said.version or self._version
        declared = self._card.declaration(labels)
        undigested = ModelPin(
            name=self._model,
            version=version,
            digest="",
            labels=labels,
            engine=said.engine,
            view=said.pixels.view.declared() if said.pixels else {},
            review=self._card.review,
            **dict(declared),
        )
        digest = self._digest(said, undigested)
        self._made_here = bool(said.pixels)
        self._pin = undigested.model_copy(update={"digest": self._as_asked(digest)})
        return self._pin

    @override
    def ready(self) -> None:
        self.require_route_ready()
        self._counted([self.pictures[0]])  # routes stay well where predictions fail

    @override
    def predict(self, images: Sequence[ImagePayload], top_k: int) -> Reply:
        pin = self._pin or self.describe()
        found = self._counted(images)
        logits = self._card.scores == "logits"
        head = head_of(pin, min(top_k, len(pin.labels)))
        answers = tuple(checked(row, head, logits=logits) for row in found.rows)
        return Reply(self._as_asked(found.digest) if found.digest else pin.digest, answers)

    def _as_asked(self, digest: str) -> str:
        """Name a model together with the pixels made for it here, and with how its answers are read.

        The archive's own digest covers the pixels already.
        """
        pixels, card = self._card.pixels, self._card
        if self._made_here and pixels and not (card.whole and digest == card.digest):
            digest = pixels.pinned(digest)
        return card.pinned(digest)

    def _counted(self, images: Sequence[ImagePayload]) -> Rows:
        found = self.rows(images)
        if len(found.rows) != len(images):
            raise ApiFaultError(
                Fault.BAD_REPLY, f"{len(found.rows)} answers that do not match {len(images)} images"
            )
        return found

    def _labels(self, said: Said) -> list[str]:
        own, its = self._card.labels, list(said.labels)
        if self._card.head is HeadKind.REGRESSION:
            return []
        if own and its and own != its:
            raise ConfigurationError(
                f"--model-card names {len(own)} labels, {own[0]!r} first; the server's model has {len(its)},"
                f" {its[0]!r} first: they are not of one model"
            )
        if not (own or its):
            raise ConfigurationError(
                f"the server does not name the classes of {self._model}: give their labels by --model-card"
            )
        return own or its

    def _digest(self, said: Said, pin: ModelPin) -> str:
        answers: list[npt.NDArray[np.float32]] = []
        own, its = self._card.digest, said.digest
        if not its:
            self._named = set()
            answers = self._known_answers(pin)
            if len(self._named) > 1:
                raise ConfigurationError(
                    f"replies of {self._model} name {len(self._named)} digests: serve one model"
                )
            its = next(iter(self._named), "")
        if its and not _DIGEST.fullmatch(its):
            raise ConfigurationError(
                f"the server's digest {one_line(its, 80)!r} is not sha256: and 64 hex digits"
            )
        if own and its and own != its:
            raise ConfigurationError(f"--model-card is of {own}, the server's model is {its}")
        if its:
            return its
        self._first = self._first or answers
        if own and alike(self._first, answers, _TOLERANCE):
            return own
        return digest_of(pin, answers)

    def _known_answers(self, pin: ModelPin) -> list[npt.NDArray[np.float32]]:
        """Ask about the fixed images, one by one, so that the server's batches cannot matter.

        One that the model cannot read is known by that, too, if the model answers another one right after.
        """
        known: dict[str, npt.NDArray[np.float32]] = {}
        for tries in range(_TRIES):
            for picture in self.pictures:
                if picture.key not in known:
                    try:
                        known[picture.key] = self._known_answer(picture, pin)
                    except ApiFaultError as fault:
                        if fault.fault not in OF_AN_IMAGE or (tries == _TRIES - 1 and not known):
                            raise
        answered = [picture for picture in self.pictures if len(known.get(picture.key, ()))]
        if not answered:
            raise ConfigurationError(f"{self._model} refuses each image that it would be known by")
        if len(known) < len(self.pictures):
            self._known_answer(answered[0], pin)
        return [known.get(picture.key, np.zeros(0, np.float32)) for picture in self.pictures]

    def _known_answer(self, picture: ImagePayload, pin: ModelPin) -> npt.NDArray[np.float32]:
        found = self._counted([picture])
        (row,) = found.rows
        self._named |= {found.digest} - {""}
        try:
            return _known(row, pin, logits=self._card.scores == "logits")
        except NoProbabilitiesFaultError as error:
            many = '; if its classes do not exclude each other, "head": "multilabel"'
            raise ConfigurationError(
                f"{self._model} answers {error.detail}; if they are logits, say so in --model-card:"
                f' "scores": "logits"{many if pin.head is HeadKind.SOFTMAX else ""}'
            ) from error

    def ask(self, method: str, path: str, **body: Any) -> requests.Response:
        """Send a request; return its answer if that is 200.

        Raises:
            ApiFaultError: There was no answer, or another.
            ConfigurationError: This client is refused, or the model is not known.
        """
        response = self.send(method, path, **body)
        if response.status_code != requests.codes.ok:
            raise self.fault_of(response)
        return response

    def send(self, method: str, path: str, **body: Any) -> requests.Response:
        """Send a request; return its answer, whatever it is. A token that is refused is read once more."""
        token = self.token
        sent = token.header if token else {}
        response = self._sent(method, path, sent, body)
        if token and response.status_code in _REFUSED and token.replaced(sent):
            response = self._sent(method, path, token.header, body)
        return response

    def _sent(
        self, method: str, path: str, header: Mapping[str, str], body: Mapping[str, Any]
    ) -> requests.Response:
        how = {"timeout": self._timeout, "allow_redirects": False, **body}
        how["headers"] = {**body.get("headers", {}), **header}
        try:
            response = self._session().request(method, self._url + path, **how)
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
        if response.status_code >= _SERVER_ERRORS:
            # Some servers close the connection after it without a word: the next request would be lost.
            self._session().close()
        return response

    def fault_of(self, response: requests.Response) -> Exception:
        """Return what an answer other than 200 means; its body is only quoted, for it may be anything."""
        status = response.status_code
        detail = f"HTTP {status} {self.quoted(response)}".strip()
        asked = f"{self._model} {self._version}".strip()
        if status in _REFUSED:
            return ConfigurationError(f"the model server refuses this client: {detail}")
        if status == requests.codes.not_found and self._pin is None:
            return UnknownModelError(f"the model API does not serve {asked}: {detail}")
        # To an image that their model cannot read, many servers answer 500, too.
        other = Fault.WORKER_DIED if status >= _SERVER_ERRORS else Fault.BAD_REPLY
        return ApiFaultError(_FAULTS.get(status, other), detail, _retry_after(response))

    def quoted(self, response: requests.Response) -> str:
        """Return what a server says, in one line, without the token if it repeats that."""
        return one_line(self.token.hidden(response.text) if self.token else response.text, 160)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = session_for(self.trusted)
        return session


def _known(row: Row, pin: ModelPin, *, logits: bool) -> npt.NDArray[np.float32]:
    """Return an answer's numbers, all of them; none of a refused image."""
    head = head_of(pin, len(pin.labels))
    if isinstance(row, Answer) and not row.reason:
        unknown = [label for label in row.labels if label not in pin.labels]
        if unknown:
            raise ConfigurationError(
                f"the server answers the label {one_line(unknown[0], 80)!r}, which the model's labels lack"
            )
        answer = row if pin.head is HeadKind.SOFTMAX else checked(row, head, logits=logits)
    else:
        answer = checked(row, head, logits=logits)
    return np.zeros(0, np.float32) if answer.reason else head.known_by(answer)


def _retry_after(response: requests.Response) -> float:
    with contextlib.suppress(ValueError):
        return min(_LONGEST_PAUSE, max(0.0, float(response.headers.get("Retry-After", "0"))))
    return 0.0
