"""One fault on the real programs. `make monitoring-test` makes all, with a TorchServe and an Airflow."""

import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitoring.conftest import program
from tests.support.children import end_all
from tests.support.model_server import ModelServer
from tests.system.faults.sinks import mail_text
from tests.system.faults.steps import ended
from tests.system.faults.watchers import WATCHING, Watchers
from tools.loopback import free_ports

PIPELINE = "refusing"
ALERT = "ImagebatchRunRefused"


@pytest.fixture
def watchers(tmp_path: Path) -> Iterator[Watchers]:
    """Prometheus, Alertmanager, Pushgateway; a model server that answers, and metrics of one that is away."""
    for name in WATCHING:
        program(name)
    server = ModelServer()
    found = Watchers(tmp_path, free_ports(1)[0])
    found.api = {"api_url": server.url}
    try:
        found.start()
        found.start_prometheus(targets=1)
        yield found
    finally:
        end_all()
        found.close()
        server.close()


def test_a_run_that_is_refused_is_told_once_to_everybody_and_taken_back(
    watchers: Watchers, tmp_path: Path
) -> None:
    """Too many images fail: mail, chat and webhook say so, once, with the page; then all is clear."""
    begun = time.time()
    assert run(watchers, "bad", folder_of(tmp_path / "bad", broken=3), "--max-failures", 2) == 65
    watchers.webhooks.wait(ALERT, PIPELINE, "firing", begun, 60)
    repaired = time.time()
    assert run(watchers, "good", folder_of(tmp_path / "good", broken=0)) == 0
    watchers.webhooks.wait(ALERT, PIPELINE, "resolved", repaired, 60)
    time.sleep(3)  # for what else may be told

    assert watchers.webhooks.firing(PIPELINE, begun) == {ALERT}
    assert watchers.webhooks.firing("torchserve", begun) == {"ImagebatchModelServerDown"}
    told = [one.status for one in watchers.webhooks.told if one.subject == PIPELINE]
    assert told == ["firing", "resolved"]
    posts = watchers.webhooks.posts
    mine = [(heads, body) for heads, body in posts["/on-call"] if PIPELINE in str(body["groupLabels"])]
    assert {heads["Authorization"] for heads, _ in mine} == {"Bearer token-of-the-pager"}
    chats = [str(body["attachments"]) for _, body in posts["/slack"] if PIPELINE in str(body)]
    mails = [text for text in map(mail_text, watchers.mailbox.mails) if PIPELINE in text]
    assert (len(mine), len(chats), len(mails)) == (2, 2, 2)
    assert all("runbook.md#imagebatchrunrefused" in text for text in chats + mails)


def run(watchers: Watchers, name: str, images: Path, *flags: object) -> int:
    """Make a run's stages one after the other, up to the first that fails: its exit code."""
    stages: list[tuple[object, ...]] = [
        ("preprocess", "--input", images, *flags),
        ("score",),
        ("postprocess",),
    ]
    for stage, *arguments in stages:
        child = watchers.stage(PIPELINE, stage, "--run-id", name, *arguments)
        ended(child, (0, 65))
        if code := child.wait():
            return code
    return 0


def folder_of(folder: Path, broken: int) -> Path:
    """Twenty images, the first of which the model server calls broken."""
    folder.mkdir()
    for number in range(20):
        note = b"BROKEN" if number < broken else b"sound"
        (folder / f"{number:02}.png").write_bytes(png(number, note))
    return folder


def png(grey: int, note: bytes) -> bytes:
    """A grey image of 32 x 32 pixels with a note in it."""
    row = b"\0" + bytes([grey * 8]) * 32
    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"tEXt", b"note\0" + note),
        (b"IDAT", zlib.compress(row * 32)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
