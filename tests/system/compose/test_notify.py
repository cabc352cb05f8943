"""The overlay monitoring/compose-alerts.yaml: the scheduler's tasks can tell people, and only with it."""

import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tools.compose.stack import ROOT, Stack

TELL = """
from imagebatch_dags.notifiers import Notice, notify
print(notify(Notice("late", "warn", "running", "a run", "{key}")))
"""


class Receiver(HTTPServer):
    """A webhook on this machine, at an address that containers of one network reach."""

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Handler)
        self.told: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        """Where it is told."""
        return f"http://{self.server_address[0]!s}:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    """Keep what is posted."""

    server: Receiver

    def do_POST(self) -> None:
        """Read one notice."""
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(stack: Stack) -> Iterator[Receiver]:
    """Listen at the bridge of the network that the overlay gives the scheduler."""
    gateway = engine(
        "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", f"{stack.project}_alerts"
    )
    server = Receiver(gateway)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    engine("volume", "rm", f"{stack.project}_airflow-alert-secrets")


def engine(*arguments: str) -> str:
    """Run `docker`."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def tell(stack: Stack, url: str, key: str, *files: str) -> subprocess.CompletedProcess[str]:
    """Tell a notice from a container like the scheduler's, as these compose files make it."""
    argv = stack.argv(*(part for file in files for part in ("-f", file)))
    argv += ["run", "--rm", "--no-deps", "-T", "-e", f"IMAGEBATCH_ALERT_WEBHOOK={url}"]
    argv += ["airflow-scheduler", "python", "-c", TELL.format(key=key)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_scheduler_tells_a_webhook_outside_with_the_overlay_alone(
    stack: Stack, receiver: Receiver
) -> None:
    """Without it nothing leaves; with it one notice arrives, and what was told is not told again by another
    container.
    """
    closed = tell(stack, receiver.url, "one", "docker-compose.yaml")
    assert closed.returncode != 0
    assert receiver.told == []
    both = ("docker-compose.yaml", "monitoring/compose-alerts.yaml")
    opened = tell(stack, receiver.url, "two", *both)
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout.strip().endswith("['webhook']")
    assert [notice["key"] for notice in receiver.told] == ["two"]
    again = tell(stack, receiver.url, "two", *both)
    assert again.stdout.strip().endswith("[]")
    assert len(receiver.told) == 1
