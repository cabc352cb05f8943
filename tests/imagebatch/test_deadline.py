"""A request is over at its deadline, whole, however a server sends: a real one on loopback that drips."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from imagebatch.contracts.records import Reason
from imagebatch.deadline import BoundedSession, within
from imagebatch.errors import ModelApiUnavailableError
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.torchserve.client import TorchServe
from imagebatch.model_apis.torchserve.management import Management
from imagebatch.settings import ModelsSettings

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
    with (
        DrippingServer(kind, _certified(tmp_path)) as server,
        BoundedSession() as session,
        pytest.raises(requests.RequestException),
        in_time(),
    ):
        session.get(server.url, timeout=SECONDS, verify=str(tmp_path / "tls.pem"))


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


def _certified(folder: Path) -> ssl.SSLContext:
    """A server's context, and its certificate as `tls.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "drips")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context
