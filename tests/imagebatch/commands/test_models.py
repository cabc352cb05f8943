"""The management API as a command, against a loopback server that records what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.calls import Call

Asked = list[tuple[str, str, dict[str, list[str]], str | None]]


@pytest.fixture
def management(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Asked]:
    """A server that answers 200 but to `gone`, `refused`, `broken`, and the first time to `busy`."""
    asked: Asked = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            asked.append((self.command, parts.path, parse_qs(parts.query), self.headers.get("Authorization")))
            failing = parts.path == "/models/broken" or (parts.path == "/models/busy" and len(asked) == 1)
            status = (
                404 if "gone" in parts.path else 400 if "refused" in parts.path else 500 if failing else 200
            )
            listing = {"models": [{"modelName": "m"}], "status": "done"}
            body = json.dumps([listing] if "customized" in parts.query else listing).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 (names of http.server)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    (tmp_path / "keys.json").write_text(json.dumps({"management": {"key": "secret"}}))
    monkeypatch.setenv("IMAGEBATCH_MANAGEMENT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("IMAGEBATCH_KEY_FILE", str(tmp_path / "keys.json"))
    yield asked
    server.shutdown()
    server.server_close()


def test_every_action_asks_what_torchserve_documents(call: Call, management: Asked) -> None:
    """Method, path and parameters of each action, with the management key and never on the command line."""
    for arguments in (
        ("list",),
        ("describe", "--model", "m"),
        ("register", "--archive", "m.mar", "--workers", "3"),
        ("scale", "--model", "m", "--model-version", "1.0", "--workers", "4"),
        ("unregister", "--model", "m", "--model-version", "1.0"),
    ):
        assert call("models", *arguments).code == 0
    assert management == [
        ("GET", "/models", {}, "Bearer secret"),
        ("GET", "/models/m", {"customized": ["true"]}, "Bearer secret"),
        (
            "POST",
            "/models",
            {"url": ["m.mar"], "initial_workers": ["3"], "synchronous": ["true"]},
            "Bearer secret",
        ),
        (
            "PUT",
            "/models/m/1.0",
            {"min_worker": ["4"], "max_worker": ["4"], "synchronous": ["true"]},
            "Bearer secret",
        ),
        ("DELETE", "/models/m/1.0", {}, "Bearer secret"),
    ]


@pytest.mark.usefixtures("management")
def test_failures_have_their_codes(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown model and refused credentials are 78, a server that is away is 69."""
    assert call("models", "describe", "--model", "gone").code == 78
    assert "refused" in call("models", "unregister", "--model", "refused").err
    assert call("models", "register").code == 78
    for archive in ("/srv/model_store/m.mar", "folder/m.mar", "http://127.0.0.1/m.mar", ".hidden.mar"):
        refused = call("models", "register", "--archive", archive)
        assert refused.code == 78
        assert "directly in the server's model store" in refused.err
    monkeypatch.setenv("IMAGEBATCH_MANAGEMENT_URL", "http://127.0.0.1:1")
    assert call("models", "list").code == 69


@pytest.mark.parametrize(
    "action", [("scale", "--workers", "2"), ("unregister",)], ids=["scale", "unregister"]
)
def test_a_busy_server_is_asked_again(
    call: Call, management: Asked, monkeypatch: pytest.MonkeyPatch, action: tuple[str, ...]
) -> None:
    """TorchServe answers 500 to what it could not end in time, and may leave a model without workers."""
    monkeypatch.setattr("imagebatch.model_apis.torchserve.management.PAUSES", (0.0, 0.0))
    assert call("models", *action, "--model", "busy").code == 0
    assert len(management) == 2
    assert management[0] == management[1]
    management.clear()
    assert call("models", *action, "--model", "broken").code == 69
    assert len(management) == 3
