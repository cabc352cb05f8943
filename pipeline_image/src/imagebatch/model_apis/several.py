"""Several endpoints of one model as one model API: balanced, and a dead one goes without being waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ConfigurationError, ImagebatchError
from imagebatch.log import get_logger
from imagebatch.model_apis.address import shown
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload, ModelApi, Reply

log = get_logger()

# After these another endpoint is asked at once: no image of the request can be the cause.
_ELSEWHERE = {Fault.UNREACHABLE, Fault.OVERLOADED}
# After these the endpoint gets no requests until it is ready again.
_DOWN = {Fault.UNREACHABLE, Fault.TIMED_OUT}
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
# Weight of the last answer in an endpoint's seconds per image.
_NEWEST = 0.3


@dataclass(eq=False)
class _Endpoint:
    """One server.

    Attributes:
        url: Where it is, as it may be shown.
        api: Its client.
        up: Whether it gets requests.
        under_way: Requests that it has not answered yet.
        each: Seconds per image, of late; 0 while unknown.
    """

    url: str
    api: ModelApi
    up: bool = True
    under_way: int = 0
    each: float = 0.0


class SeveralEndpoints(ModelApi):
    """Servers of one model. Safe to call from several threads.

    A request goes to the server that is expected to answer it first, by the requests that it has under way
    and by what an image has taken it. One that cannot be reached, or takes too long, is left out until it
    answers again and still has the model.

    Args:
        apis: A client for each URL.
    """

    def __init__(self, apis: Mapping[str, ModelApi]) -> None:
        self._endpoints = [_Endpoint(shown(url), api) for url, api in apis.items()]
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._digest = ""

    @override
    def describe(self) -> ModelPin:
        pins: dict[str, ModelPin] = {}
        last = _nobody()
        for endpoint in [one for one in self._endpoints if one.up]:
            try:
                pins[endpoint.url] = endpoint.api.describe()
            except ApiFaultError as fault:
                last = fault
                self._put_down(endpoint, fault)
        if not pins:
            raise last
        digests = {pin.digest: url for url, pin in pins.items()}
        if len(digests) > 1 and not self._digest:
            told = ", ".join(f"{url} {digest}" for digest, url in digests.items())
            raise ConfigurationError(f"the endpoints of --api-url do not serve one model: {told}")
        self._digest = self._digest or next(iter(digests))
        return next((pin for pin in pins.values() if pin.digest != self._digest), next(iter(pins.values())))

    @override
    def ready(self) -> None:
        fault = _nobody()
        for endpoint in sorted(self._endpoints, key=lambda one: not one.up):
            try:
                endpoint.api.ready()
            except ApiFaultError as error:
                fault = error
            else:
                endpoint.up = endpoint.up or self._still_serves(endpoint)
                if endpoint.up:
                    return
        raise fault

    @override
    def predict(self, images: Sequence[ImagePayload], top_k: int) -> Reply:
        fault = _nobody()
        tried: set[_Endpoint] = set()
        while endpoint := self._taken(tried):
            started = time.monotonic()
            try:
                reply = endpoint.api.predict(images, top_k)
            except ApiFaultError as error:
                if error.fault in _DOWN:
                    self._put_down(endpoint, error)
                if error.fault not in _ELSEWHERE:
                    raise
                fault = error
                tried.add(endpoint)
            else:
                self._note(endpoint, (time.monotonic() - started) / len(images))
                return Reply(
                    reply.digest, tuple(replace(one, endpoint=endpoint.url) for one in reply.answers)
                )
            finally:
                with self._lock:
                    endpoint.under_way -= 1
        raise fault

    @override
    def close(self) -> None:
        self._closed.set()
        for endpoint in self._endpoints:
            endpoint.api.close()

    def _taken(self, tried: set[_Endpoint]) -> _Endpoint | None:
        """Choose the endpoint for a request, and count the request; None if there is none left."""
        with self._lock:
            there = [one for one in self._endpoints if one.up and one not in tried]
            known = min((one.each for one in there if one.each), default=1.0)
            if not there:
                return None
            chosen = min(there, key=lambda one: (one.under_way + 1) * (one.each or known))
            chosen.under_way += 1
            return chosen

    def _note(self, endpoint: _Endpoint, each: float) -> None:
        with self._lock:
            endpoint.each = each if not endpoint.each else endpoint.each + _NEWEST * (each - endpoint.each)

    def _put_down(self, endpoint: _Endpoint, fault: ApiFaultError) -> None:
        with self._lock:
            if not endpoint.up:
                return
            endpoint.up = False
        log.warning("endpoint left out until it answers again", endpoint=endpoint.url, fault=str(fault))
        threading.Thread(target=self._revive, args=(endpoint,), daemon=True).start()

    def _revive(self, endpoint: _Endpoint) -> None:
        """Probe an endpoint until it answers with the model, and let it have requests again."""
        pause = _FIRST_PAUSE
        while not self._closed.wait(pause) and not endpoint.up:
            pause = min(_LONGEST_PAUSE, 2 * pause)
            try:
                endpoint.api.ready()
                endpoint.up = self._still_serves(endpoint)
            except ImagebatchError as error:
                log.warning("endpoint stays left out", endpoint=endpoint.url, cause=str(error))
            except ApiFaultError:
                continue
        if endpoint.up:
            log.info("endpoint answers again", endpoint=endpoint.url)

    def _still_serves(self, endpoint: _Endpoint) -> bool:
        """Tell whether an endpoint that was left out has the model of the others."""
        found = endpoint.api.describe().digest
        if self._digest and found != self._digest:
            log.warning(
                "endpoint stays left out: it serves another model", endpoint=endpoint.url, digest=found
            )
            return False
        return True


def _nobody() -> ApiFaultError:
    return ApiFaultError(Fault.UNREACHABLE, "no endpoint of --api-url is up")
