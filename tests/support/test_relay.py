"""The proxy passes everything on unchanged, and spoils exactly what it is told to."""

from collections.abc import Iterator

import pytest
import requests

from tests.support.model_server import ModelServer, Wrong
from tests.support.relay import Asked, Relay

FILES = [("a", ("a", b"first", "image/png")), ("b", ("b", b"second", "image/png"))]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


def predict(url: str) -> requests.Response:
    return requests.post(f"{url}/predictions/solar-cells", files=FILES, headers={"X-Top-K": "2"}, timeout=10)


def test_passes_on(server: ModelServer) -> None:
    """A reply through the proxy is the server's own; requests and images are counted."""
    with Relay(server.url) as relay:
        assert predict(relay.url).json() == predict(server.url).json()
        described = requests.post(f"{relay.url}/predictions/solar-cells", json={"describe": True}, timeout=10)
        assert described.json() == server.description()
        assert (relay.requests, relay.scored) == (2, 2)


def test_what_passes_can_be_changed(server: ModelServer) -> None:
    """The server gets what `passed` makes of a request."""
    server.key = "k"

    def with_key(asked: Asked) -> Asked:
        asked.headers["Authorization"] = "Bearer k"
        return asked

    with Relay(server.url, passed=with_key) as relay:
        assert predict(relay.url).status_code == 200
    assert predict(server.url).status_code == 400


def test_passes_headers_and_refusals_on(server: ModelServer) -> None:
    """Request headers arrive, and a refusal comes back with its status and body."""
    server.key = "k"
    with Relay(server.url) as relay:
        refused = predict(relay.url)
        assert (refused.status_code, refused.json()["type"]) == (400, "InvalidKeyException")
        headers = {"X-Top-K": "1", "Authorization": "Bearer k"}
        url = f"{relay.url}/predictions/solar-cells"
        assert requests.post(url, files=FILES, headers=headers, timeout=10).status_code == 200


def test_answers_in_the_place_of_the_server(server: ModelServer) -> None:
    """What `before` returns is sent, and the server is not asked."""
    with Relay(server.url, before=lambda asked: Wrong(503) if asked.number == 1 else None) as relay:
        assert predict(relay.url).status_code == 503
        assert server.requests == 0
        assert predict(relay.url).status_code == 200


@pytest.mark.parametrize("how", ["half", "reset"])
def test_breaks_a_connection_after_the_server_has_answered(server: ModelServer, how: str) -> None:
    """Half a reply, or a reset in its middle, is an error to the client, whatever the server did."""

    def after(_: Asked, reply: Wrong) -> Wrong:
        return Wrong(200, reply.body, reply.headers, **{how: True})

    with Relay(server.url, after=after) as relay:
        with pytest.raises(requests.RequestException, match="reset" if how == "reset" else "bytes read"):
            predict(relay.url)
        assert server.requests == 1


def test_a_server_that_is_away_hangs_up(server: ModelServer) -> None:
    """Without a server the client sees a connection that closes, as it would without a proxy."""
    server.close()
    with Relay(server.url) as relay, pytest.raises(requests.ConnectionError):
        predict(relay.url)


def test_knows_the_images_of_a_request(server: ModelServer) -> None:
    """A multipart request's names and bytes are seen by `before`; a description has none."""
    seen: list[Asked] = []
    with Relay(server.url, before=lambda asked: seen.append(asked)) as relay:  # noqa: PLW0108 - append returns None, as `before` may
        predict(relay.url)
        requests.post(f"{relay.url}/predictions/solar-cells", json={"describe": True}, timeout=10)
    assert [asked.images for asked in seen] == [[("a", b"first"), ("b", b"second")], []]
