"""Where an archive comes from: `<archive>.release.json`, with a bill of materials and a signature beside it.

The archive itself carries none of it: the same training gives the same bytes, whoever releases it.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from imagebatch_training.errors import ConfigurationError
from imagebatch_training.files import publish, sha256_file, sha256_json, write_json
from imagebatch_training.images.data import DataSet


def data_digest(data: DataSet) -> str:
    """Digest a data set: of every image its id, label, parts of both splits, and the SHA-256 of its file."""
    rows = [
        [e.image_id, e.label, e.block, e.random_split, e.block_split, sha256_file(e.path(data.images))]
        for e in data.labels.examples
    ]
    return f"sha256:{sha256_json(rows)}"


def git_commit(folder: Path) -> str:
    """Return the commit that a folder is at, `+changes` where files differ from it; empty: no checkout."""
    git = shutil.which("git")
    if git is None:
        return ""
    commit, changes = (
        subprocess.run([git, "-C", str(folder), *words], capture_output=True, text=True, check=False)  # noqa: S603 - no shell, fixed words
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    if commit.returncode:
        return ""
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def write_sbom(handlers: Path, path: Path) -> bool:
    """Write the packages that serve the archive, as they are locked, in CycloneDX's JSON.

    Args:
        handlers: The serving project, with its `uv.lock`.
        path: The file.

    Returns:
        Whether it is written: it needs uv, on the PATH or in the checkout.
    """
    own = handlers.resolve().parent / "var" / "uv" / "bin" / "uv"
    uv = str(own) if own.is_file() else shutil.which("uv")
    if uv is None or not (handlers / "uv.lock").is_file():
        return False
    asked = ["export", "--quiet", "--frozen", "--no-dev", "--format", "cyclonedx1.5", "--preview"]
    with publish(path) as temporary:
        words = [uv, *asked, "--project", str(handlers), "--output-file", str(temporary)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, our own arguments
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1][:200]
            raise ConfigurationError(f"uv makes no bill of materials of {handlers}: {said}")
    return True


def write_provenance(path: Path, content: Mapping[str, Any], signing_key: str) -> None:
    """Write a release's record, and sign it where there is a key.

    Args:
        path: `<archive>.release.json`; the signature is `<archive>.release.json.sig`, 64 bytes.
        content: The record; it names the SHA-256 of the archive and of the bill of materials.
        signing_key: PEM file with an ed25519 private key; empty: unsigned.

    Raises:
        ConfigurationError: The key cannot be used.
    """
    key = _key(signing_key) if signing_key else None
    signature = path.with_name(f"{path.name}.sig")
    signature.unlink(missing_ok=True)  # never a signature beside what it does not sign
    write_json(path, content)
    if key:
        with publish(signature) as temporary:
            temporary.write_bytes(key.sign(path.read_bytes()))


def _key(file: str) -> Ed25519PrivateKey:
    try:
        found = load_pem_private_key(Path(file).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"release.signing_key {file} cannot be read: {error}") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise ConfigurationError(
            f"release.signing_key {file} is no ed25519 key: openssl genpkey -algorithm ed25519"
        )
    return found
