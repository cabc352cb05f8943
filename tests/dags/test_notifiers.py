"""Notifiers against a real mail server and a real webhook receiver on loopback."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from imagebatch_dags.notifiers import Notice, notify

LATE = Notice(
    "imagebatch late: batch manual__1 is running", "late", "running", "batch manual__1", "batch 1 late"
)
ESCALATION = Notice("still not there", "escalation", "failed", "batch manual__1", "batch 1 escalation")


@dataclass
class Receivers:
    """What arrived: posts as (path, authorization, body), and mails."""

    posts: list[tuple[str, str, Any]] = field(default_factory=list)
    mails: list[tuple[list[str], Message]] = field(default_factory=list)
    url: str = ""

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content)))
        return "250 kept"


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receivers]:
    """Set all three kinds of receivers."""
    received = Receivers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.posts.append((self.path, self.headers.get("Authorization", ""), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mail = Controller(received, hostname="127.0.0.1", port=port)
    mail.start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    received.url = f"http://127.0.0.1:{web.server_port}"
    (tmp_path / "slack").write_text(f"{received.url}/slack\n")
    (tmp_path / "token").write_text("secret\n")
    settings = {
        "WEBHOOK": f"{received.url}/hook",
        "WEBHOOK_TOKEN_FILE": tmp_path / "token",
        "SLACK_FILE": tmp_path / "slack",
        "EMAIL": "a@example.org, b@example.org",
        "ESCALATION_EMAIL": "boss@example.org",
        "SMTP": f"127.0.0.1:{port}",
        "STATE": tmp_path / "alerts",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"IMAGEBATCH_ALERT_{name}", str(value))
    yield received
    web.shutdown()
    web.server_close()
    thread.join()
    mail.stop()


def test_every_receiver_is_told(receivers: Receivers) -> None:
    """Mail, Slack's form and the JSON object each carry the line; the token comes from its file."""
    assert notify(LATE) == ["webhook", "slack", "e-mail"]
    by_path = {path: (token, body) for path, token, body in receivers.posts}
    assert by_path["/hook"] == ("Bearer secret", {**vars(LATE)})
    assert by_path["/slack"] == ("", {"text": f"{LATE.text}\nWhat to do: {LATE.page}"})
    ((to, mail),) = receivers.mails
    assert to == ["a@example.org", "b@example.org"]
    assert mail["Subject"] == LATE.text
    assert LATE.page in mail.get_payload()


def test_the_same_event_is_told_once(receivers: Receivers) -> None:
    """A callback that Airflow makes twice, or two schedulers make, is one message to each receiver."""
    notify(LATE)
    assert notify(LATE) == []
    assert (len(receivers.posts), len(receivers.mails)) == (2, 1)


def test_an_escalation_is_mailed_further(receivers: Receivers) -> None:
    """Whoever is responsible hears of it only then."""
    notify(ESCALATION)
    ((to, _),) = receivers.mails
    assert to == ["a@example.org", "b@example.org", "boss@example.org"]


def test_a_receiver_that_is_away_silences_no_other_and_is_told_later(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback fails, so that Airflow shows it; called again it tells only who has not been told."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("IMAGEBATCH_ALERT_WEBHOOK", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(OSError, match="refused"):
            notify(LATE)
    assert (len(receivers.posts), len(receivers.mails)) == (1, 1)
    monkeypatch.setenv("IMAGEBATCH_ALERT_WEBHOOK", f"{receivers.url}/hook")
    assert notify(LATE) == ["webhook"]


def test_a_password_is_never_sent_in_the_clear(receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail server without STARTTLS gets neither the password nor the mail."""
    monkeypatch.setenv("IMAGEBATCH_ALERT_SMTP_PASSWORD_FILE", f"{Path(__file__)}")
    with pytest.raises(OSError, match="STARTTLS"):
        notify(LATE)
    assert receivers.mails == []


def test_a_webhook_that_is_no_web_address_is_refused(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or another scheme is not opened."""
    assert receivers.posts == []
    monkeypatch.setenv("IMAGEBATCH_ALERT_WEBHOOK", "file:///etc/passwd")
    with pytest.raises(ValueError, match="http or https"):
        notify(LATE)


def test_without_settings_nobody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The log is all there is until an installation names receivers."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert notify(LATE) == []
