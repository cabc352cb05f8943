"""The digest that names an archive's content."""

import hashlib
import tomllib
from pathlib import Path

import pytest
from imagebatch_archive import MODULES, content_digest, module_path


def test_the_digest_is_the_documented_one(tmp_path: Path) -> None:
    """A reader of docs/reference/wire.md computes the same digest with nothing but SHA-256."""
    (tmp_path / "b.bin").write_bytes(b"two")
    (tmp_path / "a.txt").write_bytes(b"one")
    lines = sorted(
        [f"{hashlib.sha256(b'one').hexdigest()}  a.txt\n", f"{hashlib.sha256(b'two').hexdigest()}  b.bin\n"]
    )
    assert content_digest(tmp_path) == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_packing_and_caches_do_not_count(tmp_path: Path) -> None:
    """What differs between two packings, or appears by running the code, leaves the digest alone."""
    (tmp_path / "model.bin").write_bytes(b"weights")
    before = content_digest(tmp_path)
    for name in ("MAR-INF/MANIFEST.json", "__pycache__/handler.cpython-311.pyc", "stray.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"noise")
    assert content_digest(tmp_path) == before


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_every_change_changes_the_digest(tmp_path: Path, change: str) -> None:
    """Other weights, another name, one more file: another model."""
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    before = content_digest(tmp_path)
    if change == "content":
        file.write_bytes(b"Weights")
    elif change == "name":
        file.rename(tmp_path / "model2.bin")
    else:
        (tmp_path / "more").touch()
    assert content_digest(tmp_path) != before


def test_nothing_has_no_digest(tmp_path: Path) -> None:
    """A missing or empty folder is an error: a digest of nothing would compare equal to any other nothing."""
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError):
            content_digest(folder)


def test_a_module_is_found_beside_the_handler_or_where_it_is_installed(tmp_path: Path) -> None:
    """What is shared with the pipeline may lie in another folder; what is not may not."""
    (tmp_path / "imagebatch_wire.py").write_text("")
    assert module_path("imagebatch_wire.py", tmp_path) == tmp_path / "imagebatch_wire.py"
    assert module_path("imagebatch_picture.py", tmp_path).is_file()
    (tmp_path / "imagebatch_picture.py").write_text("")
    assert module_path("imagebatch_picture.py", tmp_path).parent == tmp_path
    with pytest.raises(FileNotFoundError, match=r"no .*imagebatch_model\.py"):
        module_path("imagebatch_model.py", tmp_path)


def test_the_list_of_modules_is_complete() -> None:
    """Every module that ships is in every archive, with the handler first."""
    import imagebatch_archive  # noqa: PLC0415 - only its place is wanted
    import imagebatch_picture  # noqa: PLC0415 - only its place is wanted

    folders = (Path(module.__file__).parent for module in (imagebatch_archive, imagebatch_picture))
    # They start it in a container, and answer for it there: no part of a model.
    beside_the_server = {"imagebatch_serve.py", "imagebatch_hosted.py"}
    found = {path.name for folder in folders for path in folder.glob("imagebatch_*.py")}
    assert set(MODULES) == found - beside_the_server
    assert MODULES[0] == "imagebatch_handler.py"


def test_no_list_of_the_shared_modules_forgets_one() -> None:
    """Wheels and the linter of each part name every module that stages and handler have in common."""
    root = Path(__file__).parents[2]
    shared = {path.stem for path in (root / "pipeline_image/picture").glob("imagebatch_*.py")}
    read = {
        part: tomllib.loads((root / part / "pyproject.toml").read_text())["tool"]
        for part in ("pipeline_image/picture", "pipeline_image", "handlers", "training")
    }
    wheel = read["pipeline_image/picture"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert {Path(name).stem for name in wheel} == shared
    for part in ("pipeline_image", "handlers", "training"):
        assert set(read[part]["deptry"]["package_module_name_map"]["imagebatch-picture"]) == shared, part
    own = {Path(name).stem for name in read["handlers"]["hatch"]["build"]["targets"]["wheel"]["only-include"]}
    assert own | shared == {Path(name).stem for name in MODULES}


def test_the_shared_modules_are_small() -> None:
    """Each has one job, and is read in one sitting."""
    folder = Path(__file__).parents[2] / "pipeline_image/picture"
    lengths = {path.name: len(path.read_text().splitlines()) for path in folder.glob("imagebatch_*.py")}
    assert max(lengths.values()) <= 300, lengths
