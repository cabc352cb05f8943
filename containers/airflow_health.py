"""A healthcheck for Airflow's containers: exits 0 when the component that is named has a fresh heartbeat.

Run in the container with the component's name as the API server knows it (`metadatabase`, `scheduler`,
`dag_processor`, `triggerer`), or with `worker`, which the broker knows. Standard library only, for
`airflow jobs check` and `celery inspect ping` cost seconds of a core each time.
"""

import json
import os
import re
import socket
import sys
import urllib.request
from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

SILENT_SECONDS = 30  # a worker asks for work every second, and tells its heartbeat every other


def main(component: str) -> int:
    """Ask for one component's health.

    Args:
        component: its key in the API server's answer, or `worker`.

    Returns:
        0 if it is healthy, else 1.
    """
    try:
        status = worker() if component == "worker" else served(component)
    except (OSError, ValueError, KeyError) as error:
        status = str(error)
    print(status)  # the engine keeps it with the container's health
    return 0 if status == "healthy" else 1


def served(component: str) -> str:
    """Ask the API server."""
    address = os.environ.get("IMAGEBATCH_AIRFLOW_URL", "http://127.0.0.1:8080")
    with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as answer:
        return str(json.load(answer)[component]["status"])


def worker() -> str:
    """Ask the broker, Redis, when it has last heard of a worker on this host."""
    broker = urlsplit(os.environ["AIRFLOW__CELERY__BROKER_URL"])
    with socket.create_connection((broker.hostname or "", broker.port or 6379), timeout=5) as connection:
        stream = cast("BinaryIO", connection.makefile("rwb"))
        if broker.password:
            _asked(stream, "AUTH", unquote(broker.password))
        own = _asked(stream, "CLIENT", "ID")
        listed = _asked(stream, "CLIENT", "LIST").splitlines()
    clients = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in listed]
    host = next(each["addr"].rpartition(":")[0] for each in clients if each["id"] == own)
    near = [each for each in clients if each["addr"].rpartition(":")[0] == host and each["id"] != own]
    # What a subscriber is sent counts as its own sign of life: a dead one seems to live while others do.
    others = [each for each in near if "subscribe" not in each["cmd"]]
    if not others:
        return "the broker knows no worker on this host"
    silent = min(int(each["idle"]) for each in others)
    return "healthy" if silent < SILENT_SECONDS else f"silent for {silent} s"


def _asked(stream: BinaryIO, *words: str) -> str:
    """Send a command to Redis, and read an answer of one line or one piece."""
    sent = [word.encode() for word in words]
    stream.write(b"*%d\r\n" % len(sent) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in sent))
    stream.flush()
    line = stream.readline().decode().strip()
    kind, told = line[:1], line[1:]
    if kind == "$":
        return stream.read(int(told) + 2).decode().rstrip("\r\n")
    if kind in {"+", ":"}:
        return told
    raise ValueError(told or "the broker has closed the connection")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
