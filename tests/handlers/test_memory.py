"""Images out of a client's memory: the right ones, and nothing else of the machine."""

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from imagebatch_memory import NAME, TOKEN_BYTES, NotSharedError, shared
from imagebatch_model import Settings
from imagebatch_wire import RequestError, parse

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can share memory so")

TOKEN = bytes(range(TOKEN_BYTES))
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK
SETTINGS = Settings(top_k=3, max_images=4)


class Client:
    """Makes memory as a client does, and closes it at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def offers(self, content: bytes, *, name: str = NAME, seals: int = SEALS) -> dict[str, Any]:
        descriptor = os.memfd_create(name, os.MFD_ALLOW_SEALING)
        self._stack.callback(os.close, descriptor)
        os.write(descriptor, content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return {"pid": os.getpid(), "fd": descriptor, "token": TOKEN.hex()}


@pytest.fixture
def client() -> Iterator[Client]:
    with ExitStack() as stack:
        yield Client(stack)


def test_what_follows_the_token_is_seen(client: Client) -> None:
    """All of it, read-only, and also after the client has closed its end."""
    descriptor = os.memfd_create(NAME, os.MFD_ALLOW_SEALING)
    os.write(descriptor, TOKEN + b"images")
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    seen = shared({"pid": os.getpid(), "fd": descriptor, "token": TOKEN.hex()})
    os.close(descriptor)
    assert seen == b"images"
    assert seen.readonly
    assert shared(client.offers(TOKEN)) == b""


def test_memory_of_another_process() -> None:
    """The client is a process of its own."""
    script = (
        "import fcntl, os, sys\n"
        f"fd = os.memfd_create({NAME!r}, os.MFD_ALLOW_SEALING)\n"
        f"os.write(fd, {TOKEN + b'elsewhere'!r})\n"
        f"fcntl.fcntl(fd, fcntl.F_ADD_SEALS, {SEALS})\n"
        "print(os.getpid(), fd, flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid, fd = process.stdout.readline().split()
        assert shared({"pid": int(pid), "fd": int(fd), "token": TOKEN.hex()}) == b"elsewhere"
        process.communicate("")
    with pytest.raises(NotSharedError, match="cannot be opened"):
        shared({"pid": int(pid), "fd": int(fd), "token": TOKEN.hex()})


def test_no_file_of_the_machine_is_opened() -> None:
    """A descriptor of a file, a pipe or a device is refused before it is opened."""
    with tempfile.TemporaryFile() as file, Path("/dev/zero").open("rb") as device:
        file.write(TOKEN + b"secret")
        file.flush()
        for descriptor in (file.fileno(), device.fileno(), *os.pipe()):
            with pytest.raises(NotSharedError, match="no memory of imagebatch"):
                shared({"pid": os.getpid(), "fd": descriptor, "token": TOKEN.hex()})


@pytest.mark.parametrize(
    ("content", "more", "complaint"),
    [
        (TOKEN + b"x", {"seals": fcntl.F_SEAL_WRITE}, "is not sealed"),
        (TOKEN + b"x", {"seals": fcntl.F_SEAL_SHRINK}, "is not sealed"),
        (TOKEN + b"x", {"name": "other"}, "no memory of imagebatch"),
        (bytes(TOKEN_BYTES) + b"x", {}, "another token"),
        (TOKEN[:-1], {}, "another token"),
        (b"", {}, "cannot be opened"),
    ],
)
def test_other_memory_is_refused(
    client: Client, content: bytes, more: dict[str, Any], complaint: str
) -> None:
    """What can still change, has another name, or belongs to another request is not looked at."""
    place = client.offers(content, **more)
    with pytest.raises(NotSharedError, match=complaint):
        shared(place)


@pytest.mark.parametrize(
    "place",
    [
        None,
        [],
        "1",
        {},
        {"pid": "../../etc", "fd": 0, "token": ""},
        {"pid": float("inf"), "fd": 0, "token": ""},
        {"pid": 1 << 70, "fd": -1, "token": "00"},
        {"pid": os.getpid(), "fd": 999_999, "token": "00"},
        {"pid": os.getpid(), "fd": 0, "token": None},
        {"pid": os.getpid(), "fd": 0, "token": "xyz"},
    ],
)
def test_nonsense_is_refused(place: Any) -> None:
    """Whatever a request says, the answer is one line."""
    with pytest.raises(NotSharedError) as caught:
        shared(place)
    assert "\n" not in str(caught.value)


def asked(place: Any, images: Any) -> Any:
    body = {"body": {"memory": place, "images": images}}
    return parse(body, {"Content-Type": "application/json"}, SETTINGS)


def test_images_follow_each_other(client: Client) -> None:
    """Each image has its own bytes, also an empty one, under its own id."""
    request = asked(client.offers(TOKEN + b"onethree"), [["a", 3], ["b", 0], ["c", 5]])
    assert request.images == (("a", b"one"), ("b", b""), ("c", b"three"))
    assert (request.top_k, request.single) == (3, False)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        ([["a", 3]], "not those of the memory"),
        ([["a", 9]], "not those of the memory"),
        ([["a", 9], ["b", -1]], "not those of the memory"),
        ([["a", float("inf")]], "must be a list"),
        ([["a"]], "must be a list"),
        (None, "must be a list"),
        (7, "must be a list"),
        ([["a", 4], ["a", 4]], "ids must be unique"),
        ([["a", 8], ["b", 0], ["c", 0], ["d", 0], ["e", 0]], "at most 4"),
    ],
)
def test_a_list_that_does_not_fit_is_malformed(client: Client, images: Any, complaint: str) -> None:
    """The sizes must be those of the memory, to the byte."""
    with pytest.raises(RequestError, match=complaint):
        asked(client.offers(TOKEN + b"eight by"), images)


def test_memory_that_is_not_there_is_said(client: Client) -> None:
    """The complaint begins with a word that the client knows, and a description answers all the same."""
    with pytest.raises(RequestError, match=r"^memory: "):
        asked({"pid": 1, "fd": 999_999, "token": ""}, [["a", 3]])
    for place, opens in ((client.offers(TOKEN), True), ({"pid": 1}, False), (None, False)):
        body = {"body": {"describe": True, "memory": place}}
        request = parse(body, {"Content-Type": "application/json"}, SETTINGS)
        assert (request.describe, request.memory) == (True, opens)
