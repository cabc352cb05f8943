"""Tokens and certificates: who is let in, what is never sent in the clear, and what no message repeats."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from imagebatch.errors import ConfigurationError
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ApiFaultError, ImagePayload, ModelApi
from imagebatch.model_apis.torchserve.management import Management
from imagebatch.settings import ApiSettings, ModelsSettings

from tests.support.calls import Call, scored
from tests.support.certificates import Certificate, self_signed
from tests.support.grpc_server import GrpcServer
from tests.support.images import jpeg
from tests.support.model_server import LABELS, ModelServer, Wrong
from tests.support.protocol_server import Habits, ProtocolServer

PACK = [ImagePayload(f"{number}-x", jpeg(number)) for number in range(3)]
SECRET = "s3cr3t-t0ken.a_b"  # noqa: S105 (it opens the servers of these tests alone)
REST = Habits(raw=True)
OVER_GRPC = Habits(raw=True, grpc=True)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


def opened(url: str, backend: str = "oip", **settings: Any) -> ModelApi:
    given = {name: str(value) for name, value in settings.items()}
    return open_backend(backend, ApiSettings(api_url=url, **given), "solar-cells", "")


def keyed(server: ProtocolServer | GrpcServer, value: str) -> None:
    """Lets in who has this token."""
    if isinstance(server, GrpcServer):
        server.token = value
    else:
        server.header = ("Authorization", f"Bearer {value}")


@pytest.mark.parametrize(
    "habits", [REST, OVER_GRPC, Habits("kserve_v1", raw=False), Habits("mlflow", raw=False)]
)
def test_a_token_lets_in_and_a_new_one_is_found(habits: Habits, token: Path, tmp_path: Path) -> None:
    """Whatever the protocol; one that is exchanged while a run goes on costs nothing."""
    card = tmp_path / "card.json"
    card.write_text(
        json.dumps({"labels": LABELS} | ({"input": "image"} if habits.protocol == "kserve_v1" else {}))
    )
    with GrpcServer(habits) if habits.grpc else ProtocolServer(habits) as server:
        keyed(server, SECRET)
        api = opened(server.url, habits.protocol, api_token_file=token, model_card=card)
        assert len(api.predict(PACK, 4).answers) == 3
        keyed(server, "another-one")
        token.write_text("another-one")
        assert len(api.predict(PACK, 4).answers) == 3
        keyed(server, "a-third")
        with pytest.raises(ConfigurationError, match="refuses this client") as caught:
            api.predict(PACK, 4)
        assert "another-one" not in str(caught.value)
        api.close()


def test_torchserve_takes_a_token_where_it_has_no_keys(server: ModelServer, token: Path) -> None:
    """What stands before it asks for one; its own key file, where there is one, comes first."""
    server.key = SECRET
    api = opened(server.url, "torchserve", api_token_file=token)
    assert len(api.predict(PACK, 4).answers) == 3
    server.key = "another-one"
    with pytest.raises(ConfigurationError, match="refused the token; see --api-token-file"):
        api.predict(PACK, 4)


@pytest.mark.parametrize(
    "header", ["X-API-Key: abc 1:2", "Authorization: Basic dXNlcjpwYXNzd29yZA=="], ids=["a key", "basic"]
)
def test_a_file_may_hold_a_whole_header(header: str, token: Path) -> None:
    """For servers that want another proof than a bearer token."""
    token.write_text(header)
    name, _, value = header.partition(": ")
    with ProtocolServer(REST) as server:
        server.header = (name, value)
        assert len(opened(server.url, api_token_file=token).predict(PACK, 4).answers) == 3


def test_the_variable_holds_a_token_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a secret comes as a variable, no file is needed; what is wrong in it is not shown."""
    with ProtocolServer(REST) as server:
        keyed(server, SECRET)
        monkeypatch.setenv("IMAGEBATCH_API_TOKEN", SECRET)
        assert len(opened(server.url).predict(PACK, 4).answers) == 3
        monkeypatch.setenv("IMAGEBATCH_API_TOKEN", f"{SECRET} and more")
        with pytest.raises(ConfigurationError, match="IMAGEBATCH_API_TOKEN holds neither") as caught:
            opened(server.url)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "two words", "two\nlines", "schlüssel", "X-Key: \x01", "a: b\r\nc: d"]
)
def test_a_file_without_a_token_is_told_and_not_shown(content: str, token: Path) -> None:
    """Nothing that could break out of a header is sent, and nothing of the file is in the line."""
    token.write_text(content)
    with pytest.raises(
        ConfigurationError, match=r"--api-token-file .*token holds neither one token"
    ) as caught:
        opened("http://127.0.0.1:1", api_token_file=token)
    assert "words" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="No such file"):
        opened("http://127.0.0.1:1", api_token_file=token.with_name("gone"))


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("http://models.example:80", "models.example unencrypted: use https://"),
        ("grpc://10.0.0.7:80", "10.0.0.7 unencrypted: use grpcs://"),
        ("http://localhost.example", "unencrypted"),
        ("http://127.0.0.1:1,http://models.example:80", "models.example unencrypted"),
        ("https://models.example", ""),
        ("grpcs://models.example:443", ""),
        ("http://localhost:1", ""),
        ("http://[::1]:1", ""),
        ("grpc://127.0.0.2:1", ""),
    ],
)
def test_no_token_goes_unencrypted_to_another_machine(url: str, refused: str, token: Path) -> None:
    """Unless it is said so."""
    if refused:
        with pytest.raises(ConfigurationError, match=refused):
            opened(url, api_token_file=token)
    opened(url, api_token_file=token, api_token_in_clear=True).close()
    if not refused:
        opened(url, api_token_file=token).close()


@pytest.mark.parametrize("habits", [REST, OVER_GRPC])
def test_a_certificate_of_an_authority_of_ones_own(
    habits: Habits, certificate: Certificate, token: Path, tmp_path: Path
) -> None:
    """With its authority it is trusted; without, the line says so at once, and nothing was sent."""
    files = [(certificate.key.read_bytes(), certificate.certificate.read_bytes())]
    with (
        GrpcServer(habits, secured=grpc.ssl_server_credentials(files))
        if habits.grpc
        else ProtocolServer(habits, secured=certificate.context)
    ) as server:
        keyed(server, SECRET)
        api = opened(server.url, api_token_file=token, api_ca_file=certificate.certificate)
        assert len(api.predict(PACK, 4).answers) == 3
        api.close()
        stranger = opened(server.url, api_token_file=token)
        with pytest.raises(
            ConfigurationError, match="not trusted: give the file of its authority by --api-ca-file"
        ):
            stranger.describe()
        stranger.close()
    (tmp_path / "ca.pem").write_text("no certificate")
    for path, said in ((tmp_path / "ca.pem", "no PEM"), (tmp_path / "gone", "No such file")):
        with pytest.raises(ConfigurationError, match=said):
            opened(server.url, api_ca_file=path)


def test_the_management_api_has_the_same_authority(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`imagebatch models` takes the file, too, and says that it is missing where it is."""
    with ProtocolServer(REST, secured=certificate.context) as server:
        monkeypatch.setattr(server, "told", lambda _path: Wrong(body=b'{"models": []}'))
        asked = {"action": "list", "management_url": server.url}
        trusting = ModelsSettings.model_validate({**asked, "api_ca_file": str(certificate.certificate)})
        assert Management(trusting).list() == []
        with pytest.raises(ConfigurationError, match="by --api-ca-file"):
            Management(ModelsSettings.model_validate(asked)).list()


def test_a_server_that_repeats_the_token_is_quoted_without_it(server: ModelServer, token: Path) -> None:
    """In every message, whatever the status: some servers answer with the headers that they did not like."""
    echo = f"is not ready for Bearer {SECRET}".encode()
    server.key = SECRET
    server.faults = lambda _number, _images: Wrong(500, echo)
    with ProtocolServer(REST) as other:
        keyed(other, SECRET)
        apis = [
            opened(other.url, api_token_file=token),
            opened(server.url, "torchserve", api_token_file=token),
        ]
        apis[0].describe()
        other.faults = lambda _images: Wrong(400, echo)
        for api in apis:
            with pytest.raises(ApiFaultError, match="is not ready for …") as caught:
                api.predict(PACK, 4)
            assert SECRET not in str(caught.value)


def test_no_file_of_a_run_holds_the_token(call: Call, images: Path, token: Path, tmp_path: Path) -> None:
    """Neither what it writes nor what it says."""
    habits = dataclasses.replace(REST)
    with ProtocolServer(habits) as server:
        keyed(server, SECRET)
        api = ("--api-url", server.url, "--api-token-file", token, "--log-level", "debug")
        outcome = scored(call, "r", images, "--backend", "oip", *api, asked=api)
    assert outcome.code == 0
    assert SECRET not in outcome.err + outcome.out
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
