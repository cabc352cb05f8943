"""The archives that no user would make are made as said, and differ in nothing else."""

import json
import zipfile
from pathlib import Path

import pytest

from tests.system.chaos import archives


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "model.mar"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            "MAR-INF/MANIFEST.json", json.dumps({"model": {"handler": "h.py", "modelVersion": "1.0"}})
        )
        file.writestr("model-config.yaml", "a: 1\n")
        file.writestr("weights", b"\0\1")
    return path


def content(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_a_replacement_has_the_same_name_and_other_content(archive: Path, tmp_path: Path) -> None:
    """Only a comment is added: enough for another digest, too little for other answers."""
    archives.replacement(archive, tmp_path / "new.mar")
    old, new = content(archive), content(tmp_path / "new.mar")
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    assert changed == {"model-config.yaml"}
    assert new["model-config.yaml"].startswith(b"a: 1\n# ")


def test_a_poisonable_archive_exits_on_the_mark_only(archive: Path, tmp_path: Path) -> None:
    """Its handler is valid Python that scores as its parent does, and ends the process on a marked image."""
    archives.poisonable(archive, tmp_path / "new.mar", "2.0")
    new = content(tmp_path / "new.mar")
    manifest = json.loads(new["MAR-INF/MANIFEST.json"])["model"]
    assert manifest == {"handler": "exiting_handler.py", "modelVersion": "2.0"}
    code = new["exiting_handler.py"].decode().replace("from imagebatch_handler import ImageBatchHandler", "")

    class Parent:
        def inference(self, request: object) -> object:
            return request

    class Request:
        def __init__(self, content: bytes) -> None:
            self.images = [("a", b"good"), ("b", content)]

    names: dict[str, object] = {"ImageBatchHandler": Parent}
    exec(compile(code, "exiting_handler.py", "exec"), names)  # noqa: S102 - the code that the archive would run
    exits: list[int] = []
    names["os"] = type("os", (), {"_exit": exits.append})
    handler = names["ExitingHandler"]
    assert isinstance(handler, type)
    harmless = Request(b"good too")
    assert handler().inference(harmless) is harmless
    assert exits == []
    handler().inference(Request(b"x" + archives.MARK))
    assert exits == [1]
