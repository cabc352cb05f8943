import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tools.loopback import free_ports
from tools.paths import ROOT, VAR


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Listen as a webhook; its address, and what was posted to it."""
    posted: list[dict[str, str]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", posted
        server.shutdown()
        thread.join()


def notice(folder: Path, address: str, service: str) -> subprocess.CompletedProcess[str]:
    """Run the program as the supervisor does."""
    own = {"PYTHONPATH": str(ROOT / "dags"), "AIRFLOW_HOME": str(folder), "IMAGEBATCH_ALERT_WEBHOOK": address}
    return subprocess.run(
        [sys.executable, "-m", "tools.local.notice", service, "was killed by SIGKILL after 61 s"],
        env={**os.environ, **own},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_people_are_told_of_each_dead_service_once_an_hour(
    tmp_path: Path, webhook: tuple[str, list[dict[str, str]]]
) -> None:
    """The sentence names service, stack and how it ended; a service that goes on dying fills no mailbox."""
    address, posted = webhook
    for service in ("torchserve", "torchserve", "postgres"):
        assert notice(tmp_path, address, service).returncode == 0
    # A third message of the first service may come when the test runs across the turn of an hour.
    assert {each["run"] for each in posted} == {"torchserve", "postgres"}
    assert len(posted) <= 3
    text = (
        f"torchserve of the imagebatch stack in {VAR} was killed by SIGKILL after 61 s, and is started again"
    )
    assert (posted[0]["text"], posted[0]["state"]) == (text, "restarted")
    page, heading = posted[0]["page"].split("#")
    assert f"## {heading.replace('-', ' ').capitalize()}" in (ROOT / page).read_text()


def test_a_receiver_that_cannot_be_told_is_one_line(tmp_path: Path) -> None:
    """The supervisor's log says why, and nothing else happens."""
    done = notice(tmp_path, f"http://127.0.0.1:{free_ports(1)[0]}/", "mlflow")
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert "nobody was told that mlflow was killed by SIGKILL after 61 s: " in done.stdout
    assert "Traceback" not in done.stderr
