"""What notifications arrive at: a webhook receiver and a mail server, both real, on loopback."""

import json
import threading
import time
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from tools.loopback import free_ports


@dataclass(frozen=True)
class Told:
    """One alert of one notification."""

    at: float  # seconds since the epoch
    status: str
    name: str
    labels: dict[str, str]

    @property
    def subject(self) -> str:
        """What it is about: a pipeline, or a server."""
        return self.labels.get("pipeline") or self.labels.get("job") or self.labels.get("instance", "")


@dataclass
class Webhooks:
    """Collects what is posted, by path."""

    told: list[Told] = field(default_factory=list)
    posts: dict[str, list[tuple[dict[str, str], Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"ok")
        self.posts.setdefault(request.path, []).append((dict(request.headers), body))
        if request.path == "/record":
            now = time.time()
            self.told += [
                Told(now, alert["status"], alert["labels"]["alertname"], alert["labels"])
                for alert in body["alerts"]
            ]

    def wait(self, name: str, subject: str, status: str, since: float, seconds: float) -> float:
        """Wait until an alert is told; returns when, in seconds since the epoch.

        Raises:
            TimeoutError: it is not.
        """
        deadline = time.time() + seconds
        while time.time() < deadline:
            for told in list(self.told):
                if (told.name, told.subject, told.status) == (name, subject, status) and told.at >= since:
                    return told.at
            time.sleep(0.1)
        raise TimeoutError(f"{name} for {subject} is not {status} after {seconds:.0f} s")

    def firing(self, subject: str, since: float) -> set[str]:
        """Names of all alerts that were told about a subject."""
        return {told.name for told in self.told if told.subject == subject and told.at >= since} - {
            "ImagebatchWatchdog"
        }

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class Mailbox:
    """A mail server that keeps what it is sent."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        (self.port,) = free_ports(1)
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep a mail."""
        self.mails.append(message_from_bytes(envelope.content))
        return "250 kept"

    def close(self) -> None:
        """Stop listening."""
        self._controller.stop()


def mail_text(mail: Message) -> str:
    """The text of a mail, whether or not it has other parts too."""
    parts = [part.get_payload(decode=True) for part in mail.walk() if not part.is_multipart()]
    return "\n".join(part.decode(errors="replace") for part in parts if isinstance(part, bytes))
