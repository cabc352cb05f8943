import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import docker
import pytest
from imagebatch_dags.container_logs import ContainerLogs

from tests.dags.engine import IMAGE

LINES = 50_000
# 15 MB: the engine rotates its log file on the way.
WRITER = f"""
import time
for i in range({LINES}):
    print(f'{{i:05d}} ' + 'x' * 300)
    if i == 1000:
        time.sleep(3)
"""
LONG = "é…😀" * 4000  # 36,000 bytes
SLOW_WRITER = """
import time
for i in range(200):
    print(f'{i:05d}')
    time.sleep(0.02 if i % 20 else 0)
"""


def start(client: docker.APIClient, own: str, script: str) -> str:
    """Start a container that runs a script, with the log file that a stage has."""
    log = docker.types.LogConfig(type="local", config={"max-size": "10m", "max-file": "3"})
    host = client.create_host_config(log_config=log, network_mode="none")
    labels = {"imagebatch.installation": own}
    made = client.create_container(IMAGE, ["imagebatch", script], labels=labels, host_config=host)
    client.start(made["Id"])
    return str(made["Id"])


def test_all_lines_arrive_while_it_runs_in_bounded_memory(client: docker.APIClient, own: str) -> None:
    """50,000 lines and a rotated log file: each arrives once, in order, live; only the last are kept."""
    count, paused, wrong = 0, 0.0, 0

    def emit(line: str) -> None:
        nonlocal count, paused, wrong
        wrong += int(line[:5]) != count
        count += 1
        paused = time.monotonic() if count == 1001 else paused

    tracemalloc.start()
    logs = ContainerLogs(client, start(client, own, WRITER), emit)
    state = logs.follow()
    ended = time.monotonic()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (count, wrong, state["ExitCode"], len(logs.last)) == (LINES, 0, 0, 20)
    assert ended - paused > 2.5  # it came before the writer's pause, not with its end
    assert most < 2_000_000


def test_a_long_line_loses_no_character_where_it_is_cut(client: docker.APIClient, own: str) -> None:
    """The engine cuts after 16 KiB, also inside a character of two, three or four bytes, at every offset."""
    seen: list[str] = []
    script = f"for i in range(4): print('x' * i + {LONG!r})\nimport os; os.write(1, '…'.encode()[:2])"
    ContainerLogs(client, start(client, own, script), seen.append).follow()
    assert seen == [*("x" * offset + LONG for offset in range(4)), chr(0xFFFD)]


def test_breaks_of_the_connection_cost_and_repeat_no_line(client: docker.APIClient, own: str) -> None:
    """A proxy that cuts every connection after 0.3 seconds: each line still arrives once, in order."""
    seen: list[int] = []
    identity = start(client, own, SLOW_WRITER)
    with cutting_proxy("/var/run/docker.sock", 0.3) as (port, cuts):
        through = docker.APIClient(f"tcp://127.0.0.1:{port}", version="1.43", timeout=5)
        ContainerLogs(through, identity, lambda line: seen.append(int(line))).follow()
        through.close()
    assert seen == list(range(200))
    assert len(cuts) > 2


def test_an_engine_that_stays_away_ends_the_task(
    client: docker.APIClient, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while without any answer there is one clear error."""
    monkeypatch.setattr("imagebatch_dags.container_logs.AWAY_SECONDS", 1.5)
    identity = start(client, own, "import time; time.sleep(600)")
    nowhere = docker.APIClient("tcp://127.0.0.1:9", version="1.43", timeout=1)
    with pytest.raises(Exception, match="the engine is away for 2 s"):
        ContainerLogs(nowhere, identity, print).follow()


@contextmanager
def cutting_proxy(path: str, seconds: float) -> Iterator[tuple[int, list[float]]]:
    """Relay TCP connections to a Unix socket, each for a while only."""
    listener = socket.create_server(("127.0.0.1", 0))
    cuts: list[float] = []

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(path)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=relay, args=(source, sink), daemon=True).start()
            threading.Timer(seconds, cut, (near, far)).start()

    def cut(*ends: socket.socket) -> None:
        cuts.append(time.monotonic())
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], cuts
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def relay(source: socket.socket, sink: socket.socket) -> None:
    """Copy bytes until either side ends."""
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        return
