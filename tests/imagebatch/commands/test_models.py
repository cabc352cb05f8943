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
from tests.support.web_server import WebServer

Asked = list[tuple[str, str, dict[str, list[str]], str | None]]


@pytest.fixture
def management(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Asked]:
    """A server that answers 200 but to `gone`, `refused`, `broken`, and the first time to `busy`.

    Workers are loading when they are looked at for the first time, those of `slow` for ever.

    Of archives it has all but missing.mar, and cannot load broken-by-labels.mar and silent.mar.
    """
    asked: Asked = []
    workers: dict[str, list[str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            asked.append((self.command, parts.path, parse_qs(parts.query), self.headers.get("Authorization")))
            failing = parts.path == "/models/broken" or (parts.path == "/models/busy" and len(asked) == 1)
            status = (
                404 if "gone" in parts.path else 400 if "refused" in parts.path else 500 if failing else 200
            )
            if self.command == "POST" and (told := loading(parts.query, tmp_path)):
                return self.tell(*told)
            if parts.path == "/models/m/default":
                return self.tell(403, "Cannot remove default version for model m")
            listing = {"models": [{"modelName": "m"}], "status": "done"}
            if "min_worker" in parts.query:
                workers[parts.path] = ["LOADING"] * int(parse_qs(parts.query)["min_worker"][0])
            elif parts.path in workers and self.command == "GET":
                told = [{"workers": [{"status": one} for one in workers[parts.path]]}]
                if parts.path != "/models/slow":
                    workers[parts.path] = ["READY"] * len(workers[parts.path])
                return self.tell(status, told)
            return self.tell(status, [listing] if "customized" in parts.query else listing)

        def tell(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
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


# TorchServe's own worker says this after whatever the handler has raised.
AT_THE_END = ("Traceback (most recent call last):", "RuntimeError: 500 - Unknown exception")


def loading(query: str, folder: Path) -> tuple[int, str] | None:
    """What TorchServe answers to the registration of an archive, and what its worker says meanwhile."""
    archive = parse_qs(query)["url"][0]
    if archive == "missing.mar":
        return 404, f"Model not found at: {archive}"
    name = archive.removesuffix(".mar")
    if name not in {"broken-by-labels", "silent"}:
        return None
    if name == "broken-by-labels":
        (folder / "logs").mkdir(exist_ok=True)
        with (folder / "logs/model_log.log").open("a") as log:
            for line in (
                "Traceback (most recent call last):",
                "ValueError: null is no label",
                "It ended.",
                *AT_THE_END,
            ):
                log.write(f"2026-11-30 [INFO ] W-9000-{name}_1.0-stdout MODEL_LOG - {line}\n")
            log.write("2026-11-30 [INFO ] W-9001-other_1.0-stdout MODEL_LOG - KeyError: another model's\n")
    return 500, f"Failed to start workers for model {name} version: 1.0"


def test_every_action_asks_what_torchserve_documents(call: Call, management: Asked) -> None:
    """Method, path and parameters of each action, with the management key and never on the command line."""
    for arguments in (
        ("list",),
        ("describe", "--model", "m"),
        ("register", "--archive", "m.mar", "--workers", "3"),
        ("scale", "--model", "m", "--model-version", "1.0", "--workers", "4"),
        ("unregister", "--model", "m", "--model-version", "1.0"),
        ("default", "--model", "m", "--model-version", "1.1"),
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
        *[("GET", "/models/m/1.0", {}, "Bearer secret")] * 2,
        ("DELETE", "/models/m/1.0", {}, "Bearer secret"),
        ("PUT", "/models/m/1.1/set-default", {}, "Bearer secret"),
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


def test_a_model_that_cannot_be_loaded_is_removed_and_its_cause_told(
    call: Call, management: Asked, tmp_path: Path
) -> None:
    """The worker's own error out of the server's log, where that is at hand; nothing stays registered."""
    (tmp_path / "logs").mkdir()
    earlier = "W-9000-silent_1.0-stdout MODEL_LOG - OSError: of an earlier try\n"
    (tmp_path / "logs/model_log.log").write_text(earlier)
    outcome = call("models", "register", "--archive", "broken-by-labels.mar")
    assert outcome.code == 78
    assert "cannot be loaded: ValueError: null is no label; it is not registered" in outcome.err
    assert management[-1][:2] == ("DELETE", "/models/broken-by-labels/1.0")
    silent = call("models", "register", "--archive", "silent.mar")
    assert (silent.code, "the server's model_log.log" in silent.err) == (69, True)
    assert management[-1][:2] == ("DELETE", "/models/silent/1.0")


@pytest.mark.parametrize("content", [b"<html>", b"", b"7", b"{}", b"[]"])
def test_another_server_is_told(call: Call, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Something answers at the address, and it is no TorchServe: 78, one line."""
    web = WebServer()
    web.files = {"/models": content, "/models/solar-cells?customized=true": content}
    monkeypatch.setenv("IMAGEBATCH_MANAGEMENT_URL", web.url)
    for action in ("list", "describe"):
        outcome = call("models", action)
        assert (outcome.code, "see --management-url" in outcome.err) == (78, True)
    web.close()


@pytest.mark.usefixtures("management")
def test_refusals_name_their_causes(call: Call) -> None:
    """An archive that is not in the store, a default version, a refused key: each says what to do."""
    missing = call("models", "register", "--archive", "missing.mar")
    assert (missing.code, "no archive missing.mar in the server's model store" in missing.err) == (78, True)
    default = call("models", "unregister", "--model", "m", "--model-version", "default")
    assert (default.code, "make another version the default first" in default.err) == (78, True)
    assert "--key-file" not in default.err
    assert "needs --model-version" in call("models", "default", "--model", "m").err


@pytest.mark.parametrize(
    "action", [("scale", "--workers", "2"), ("unregister",)], ids=["scale", "unregister"]
)
def test_a_busy_server_is_asked_again(
    call: Call, management: Asked, monkeypatch: pytest.MonkeyPatch, action: tuple[str, ...]
) -> None:
    """TorchServe answers 500 to what it could not end in time, and may leave a model without workers."""
    monkeypatch.setattr("imagebatch.model_apis.torchserve.management.PAUSES", (0.0, 0.0))
    assert call("models", *action, "--model", "busy").code == 0
    changes = [one for one in management if one[0] != "GET"]
    assert len(changes) == 2
    assert changes[0] == changes[1]
    management.clear()
    assert call("models", *action, "--model", "broken").code == 69
    assert len(management) == 3


@pytest.mark.usefixtures("management")
def test_workers_that_do_not_come_are_told(call: Call) -> None:
    """`scale` ends with 69 when they are not ready in time; none at all are ready at once."""
    late = call("models", "scale", "--model", "slow", "--workers", "2", "--request-timeout", "0.5")
    assert (late.code, "0 of 2 workers of slow are ready" in late.err) == (69, True), late.err
    assert call("models", "scale", "--model", "slow", "--workers", "0").code == 0
