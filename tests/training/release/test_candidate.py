"""What a release asks of versions, archives, keys and the command that talks to the server."""

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
from imagebatch_training.archive.archive import archive_paths, golden_path
from imagebatch_training.errors import (
    ConfigurationError,
    DataError,
    NothingToCompareError,
    ServerError,
    TrainingError,
)
from imagebatch_training.release.candidate import _after, default_archive, digest_of, version_of
from imagebatch_training.release.provenance import git_commit, write_provenance, write_sbom
from imagebatch_training.release.server import Server

from tests.training.shapes import small_settings


def test_a_version_names_the_archives_files(tmp_path: Path) -> None:
    """The first keeps the model's name alone; golden images go with the archive."""
    for words, stem in (
        ((), "shapes"),
        (("model.version=1.1",), "shapes-1.1"),
        (("model.version=1.1", "model.engine=onnxruntime"), "shapes-onnxruntime-1.1"),
    ):
        settings = small_settings(tmp_path, tmp_path, *words)
        assert [path.name for path in archive_paths(settings)] == [f"{stem}.mar", f"{stem}.json"]
        assert golden_path(settings).name == f"{stem}.golden.json"


@pytest.mark.parametrize(
    ("versions", "after"),
    [
        ([], "1.0"),
        (["1.0"], "1.1"),
        (["1.9", "1.10"], "1.11"),
        (["2", "1.5", "beta"], "3"),
        (["beta"], "1.0"),
    ],
)
def test_the_next_version_is_after_the_highest(versions: list[str], after: str) -> None:
    """As numbers, not as text; what is no number does not count."""
    assert _after(versions) == after


def test_the_stores_default_is_the_remembered_one(tmp_path: Path) -> None:
    """Else the archive of the model's name; a damaged file counts as none."""
    assert default_archive(tmp_path, "shapes") == "shapes.mar"
    file = tmp_path / "shapes.serving.json"
    file.write_text(json.dumps({"default": {"version": "1.1", "archive": "shapes-1.1.mar"}}))
    assert default_archive(tmp_path, "shapes") == "shapes-1.1.mar"
    file.write_text("{")
    assert default_archive(tmp_path, "shapes") == "shapes.mar"


def test_no_archive_is_told(tmp_path: Path) -> None:
    """In one line, whatever lies in its place; its version is read from its manifest."""
    path = tmp_path / "m.mar"
    for content in (b"", b"PK no zip"):
        path.write_bytes(content)
        for read in (digest_of, version_of):
            with pytest.raises(ConfigurationError, match=r"m\.mar is no archive"):
                read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelVersion": "1.7"}}')
        archive.writestr("handler.py", "")
    assert version_of(path) == "1.7"
    assert digest_of(path).startswith("sha256:")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (65, DataError),
        (69, ServerError),
        (78, ConfigurationError),
        (99, NothingToCompareError),
        (1, ServerError),
    ],
)
def test_a_failed_command_is_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[TrainingError]
) -> None:
    """Its last line without the program's name, and an error of the same exit code."""
    program = tmp_path / "imagebatch"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nprint('log', file=sys.stderr)\n"
        f"print('imagebatch: the cause', file=sys.stderr)\nsys.exit({code})\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEBATCH_BIN", str(program))
    server = Server(model="shapes", store=tmp_path, workers=1)
    with pytest.raises(kind, match=r"^the cause$"):
        server.register("shapes.mar")
    monkeypatch.setenv("IMAGEBATCH_BIN", str(tmp_path / "none"))
    monkeypatch.setattr("imagebatch_training.release.server._NEXT_DOOR", tmp_path / "none")
    with pytest.raises(ConfigurationError, match="install imagebatch"):
        server.register("shapes.mar")


def test_without_tools_a_release_says_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No git, no uv, no checkout: no commit and no bill of materials, and no error."""
    monkeypatch.setenv("PATH", os.devnull)
    assert git_commit(tmp_path) == ""
    assert write_sbom(tmp_path / "handlers", tmp_path / "sbom.json") is False
    record = tmp_path / "m.release.json"
    signature = tmp_path / "m.release.json.sig"
    signature.write_bytes(b"of an earlier record")
    write_provenance(record, {"model": "m"}, "")
    assert json.loads(record.read_text()) == {"model": "m"}
    assert not signature.exists()


@pytest.mark.parametrize("remembered", ["", "{}"])
def test_the_default_is_remembered_before_a_new_archive_is_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: str
) -> None:
    """Once: a store that says its default already is left alone."""
    program = tmp_path / "imagebatch"
    described = {"answer": {"modelVersion": "1.0"}}
    program.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(tmp_path / 'asked')!r}, 'a').write(sys.argv[2] + ' ')\n"
        f"print({json.dumps(json.dumps(described))})\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEBATCH_BIN", str(program))
    if remembered:
        (tmp_path / "shapes.serving.json").write_text(remembered)
    server = Server(model="shapes", store=tmp_path, workers=1)
    server.remember_default()
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("" if remembered else "describe set-default ")
