"""A request is over at its deadline, whole, however a server sends: a real one on loopback that drips."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from imagebatch.contracts.records import Reason
from imagebatch.deadline import BoundedSession, within
from imagebatch.errors import ModelApiUnavailableError
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.torchserve.client import TorchServe
from imagebatch.model_apis.torchserve.management import Management
from imagebatch.settings import ModelsSettings

from tests.support.certificates import self_signed
from tests.support.dripping_server import DRIPS, DrippingServer
from tests.support.web_server import WebServer

SECONDS = 0.3
SLOW = 20.0  # seconds: a busy machine may take long, and a server that drips would hold its reader for ever


@contextmanager
def in_time() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert SECONDS * 0.9 < time.monotonic() - begun < SLOW


@pytest.mark.parametrize("kind", DRIPS)
def test_a_model_server_that_drips(kind: str) -> None:
    """The request is given up after its time, as one that was not answered at all."""
    with DrippingServer(kind) as server:
        api = TorchServe(server.url, "m", "", timeout=SECONDS)
        with pytest.raises(ApiFaultError) as caught, in_time():
            api.predict([ImagePayload("a", b"image")], 1)
    assert (caught.value.fault, str(SECONDS) in str(caught.value)) == (Fault.TIMED_OUT, True)


@pytest.mark.parametrize("kind", DRIPS)
def test_a_web_server_that_drips(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its image cannot be read; whether others can, they will show."""
    monkeypatch.setattr("imagebatch.inputs.web._WHOLE_SECONDS", SECONDS)
    with DrippingServer(kind) as server:
        source = ImageSource([server.url], 1_000_000)
        with pytest.raises(ImageUnavailableError, match=f"not sent within {SECONDS} s") as caught, in_time():
            source.read(f"{server.url}/a.jpg")
    assert caught.value.reason is Reason.UNREADABLE


def test_a_server_that_takes_nothing() -> None:
    """A large body that nobody reads is given up as well."""
    body = b"x" * (64 << 20)
    with (
        DrippingServer("") as server,
        BoundedSession() as session,
        pytest.raises(requests.RequestException),
        in_time(),
    ):
        session.post(server.url, data=body, timeout=SECONDS)


def test_a_management_api_that_drips() -> None:
    """`models` ends with the code for a server that does not answer."""
    with DrippingServer("a body with a length") as server:
        asked = ModelsSettings(action="list", management_url=server.url, request_timeout=SECONDS)
        with pytest.raises(ModelApiUnavailableError), in_time():
            Management(asked).list()


@pytest.mark.parametrize("kind", ["one endless header", "small chunks"])
def test_an_encrypted_server_that_drips(tmp_path: Path, kind: str) -> None:
    """TLS changes nothing."""
    certificate = self_signed(tmp_path)
    with (
        DrippingServer(kind, certificate.context) as server,
        BoundedSession() as session,
        pytest.raises(requests.RequestException),
        in_time(),
    ):
        session.get(server.url, timeout=SECONDS, verify=str(certificate.certificate))


def test_a_deadline_that_is_over_binds_no_later_request() -> None:
    """The connection is used again, and a shorter block inside a longer one is the one that counts."""
    web = WebServer()
    web.files = {"/a": b"a" * 100_000}
    try:
        with BoundedSession() as session:
            with within(SECONDS) as clock:
                with within(3600) as inner:
                    assert inner.left <= SECONDS
                time.sleep(clock.left)
                with pytest.raises(requests.RequestException):
                    session.get(f"{web.url}/a")
            assert session.get(f"{web.url}/a", timeout=SLOW).content == web.files["/a"]
            assert session.get(f"{web.url}/a").content == web.files["/a"]
    finally:
        web.close()
