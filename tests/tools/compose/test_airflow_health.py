"""The healthcheck of a worker's container, at a server that answers as Redis does."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import IO

import airflow_health
import pytest

PASSWORD = "a-b_c"  # noqa: S105 - of a server that lives for one test
QUIET = "id=7 addr=127.0.0.1:{port} idle=0 cmd=client|list\n"


class Broker:
    """Answers AUTH, CLIENT ID and CLIENT LIST; `clients` are lines of the latter beside the asker's own."""

    def __init__(self) -> None:
        self.clients = ""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):  # closed before
            self._server.shutdown(socket.SHUT_RDWR)  # also for who waits in accept()
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, address = self._server.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                while head := stream.readline():
                    count = int(head[1:])
                    words = [_word(stream) for _ in range(count)]
                    stream.write(self._answer(words, QUIET.format(port=address[1])))
                    stream.flush()

    def _answer(self, words: list[str], own: str) -> bytes:
        if words[0] == "AUTH":
            return b"+OK\r\n" if words[1:] == [PASSWORD] else b"-WRONGPASS invalid username-password pair\r\n"
        if words == ["CLIENT", "ID"]:
            return b":7\r\n"
        text = (own + self.clients).encode()
        return b"$%d\r\n%s\r\n" % (len(text), text)


def _word(stream: IO[bytes]) -> str:
    return stream.read(int(stream.readline()[1:]) + 2).strip().decode()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """Stand where a worker's container finds its broker."""
    with closing(Broker()) as running:
        monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", f"redis://:{PASSWORD}@127.0.0.1:{running.port}/0")
        yield running


@pytest.mark.parametrize(
    ("clients", "code", "told"),
    [
        ("id=3 addr=127.0.0.1:1 idle=40 cmd=ping\nid=4 addr=127.0.0.1:2 idle=1 cmd=brpop\n", 0, "healthy"),
        ("id=3 addr=127.0.0.1:1 idle=40 cmd=brpop\n", 1, "silent for 40 s"),
        ("id=3 addr=127.0.0.1:1 idle=1 cmd=psubscribe\n", 1, "the broker knows no worker on this host"),
        ("id=3 addr=10.0.0.9:1 idle=0 cmd=brpop\n", 1, "the broker knows no worker on this host"),
    ],
)
def test_a_worker_is_healthy_while_the_broker_hears_it(
    broker: Broker, clients: str, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One connection of this host must have spoken lately; that of a neighbour's worker does not count."""
    broker.clients = clients
    assert airflow_health.main("worker") == code
    assert capsys.readouterr().out.strip() == told


def test_a_broker_that_refuses_or_is_away_is_told(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine keeps the reason with the container's health; the password is not in it."""
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", f"redis://:wrong@127.0.0.1:{broker.port}/0")
    assert airflow_health.main("worker") == 1
    assert "WRONGPASS" in capsys.readouterr().out
    broker.close()
    assert airflow_health.main("worker") == 1
    told = capsys.readouterr().out
    assert "refused" in told
    assert "wrong" not in told
