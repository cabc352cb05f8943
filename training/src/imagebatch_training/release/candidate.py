"""The candidate: a version that is free, its archive out of the server's sight, what it is held against."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imagebatch_archive import content_digest  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker

from imagebatch_training.archive.archive import archive_paths, ensure_archive, golden_path
from imagebatch_training.archive.mar import archive_name
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.files import publish, read_json, sha256_file
from imagebatch_training.release.registry import RELEASED, STATUS, WEIGHTS, Entry, Registry
from imagebatch_training.settings import FIRST_VERSION, Settings

NEXT = "next"
"""The value of `model.version` that asks for one that is free."""
KEPT = (".json", ".golden.json", ".parity.json", ".release.json", ".release.json.sig", ".sbom.json", ".mar")
"""Files of one archive, the archive last: whoever sees it sees the others, too."""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """What a challenger is held against.

    Attributes:
        version: On the model server.
        archive: Its file.
        digest: Of its content.
        entry: In the registry; None where it has been served without ever being released.
    """

    version: str
    archive: Path
    digest: str
    entry: Entry | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An archive that waits for its release, beside the model store.

    Attributes:
        settings: With its version, and `paths.model_store` where it waits.
        store: The model store.
        record: As `ensure_archive` returns it.
    """

    settings: Settings
    store: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the model on the server."""
        return archive_name(self.settings.model)

    @property
    def version(self) -> str:
        """On the model server."""
        return self.settings.model.version

    @property
    def archive(self) -> Path:
        """The waiting archive."""
        return archive_paths(self.settings)[0]

    @property
    def served(self) -> Path:
        """The archive in the model store."""
        return self.store / self.archive.name

    @property
    def golden(self) -> Path:
        """Its golden images."""
        return golden_path(self.settings)

    def beside(self, suffix: str) -> Path:
        """Return the path of one of its files, by what follows the archive's stem."""
        return self.archive.with_name(f"{self.archive.stem}{suffix}")

    def put_into_store(self) -> None:
        """Copy the archive and what belongs to it where the server loads from; each file whole."""
        for suffix in KEPT:
            source, target = self.beside(suffix), self.store / f"{self.archive.stem}{suffix}"
            if not source.is_file():
                target.unlink(missing_ok=True)
            elif not target.is_file() or sha256_file(source) != sha256_file(target):
                with publish(target) as temporary:
                    shutil.copyfile(source, temporary)

    def take_out_of_store(self) -> None:
        """Remove it from the model store: a restart of the server must not load it."""
        for suffix in reversed(KEPT):
            (self.store / f"{self.archive.stem}{suffix}").unlink(missing_ok=True)


def make_candidate(settings: Settings, registry: Registry, weights_sha256: str) -> Candidate:
    """Find a version and make its archive where no server looks.

    Args:
        settings: `model.version`, or `next`.
        registry: Which versions have been released.
        weights_sha256: Of the trained model.

    Raises:
        ConfigurationError: The version belongs to another archive for good.
        DataError: The trained model cannot be an archive.
    """
    store = Path(settings.paths.model_store)
    entries = registry.entries()
    if settings.model.version == NEXT:
        own, record = _of_next_version(settings, entries, weights_sha256)
    else:
        own = waiting(settings)
        record = ensure_archive(own)
    candidate, version = Candidate(settings=own, store=store, record=record), own.model.version
    taken = {e.digest for e in entries if e.version == version and e.tags.get(STATUS) == RELEASED}
    if candidate.served.is_file():
        taken.add(digest_of(candidate.served))
    if taken - {candidate.record["digest"]}:
        raise ConfigurationError(
            f"{candidate.name} {version} is another archive already: release this one as"
            f" model.version={_after([version, *(e.version for e in entries)])}, or model.version={NEXT}"
        )
    return candidate


def waiting(settings: Settings) -> Settings:
    """Return settings under which archives are made where no server looks for them."""
    folder = str(Path(settings.paths.training) / "candidate")
    return replace(settings, paths=replace(settings.paths, model_store=folder))


def find_champion(candidate: Candidate, registry: Registry, default: str) -> Champion | None:
    """Find what is served now: the registry's champion, else the store's default.

    Args:
        candidate: Whose champion is sought.
        registry: Where the alias is.
        default: File name of the archive that is the default without any registry.

    Returns:
        The champion; None where there is none, as before the first release.

    Raises:
        ConfigurationError: The registry names an archive that the model store does not have.
    """
    entry = registry.named("champion")
    if entry is None:
        path = candidate.store / default
        if not path.is_file():
            return None
        return Champion(version=version_of(path), archive=path, digest=digest_of(path), entry=None)
    path = candidate.store / entry.archive
    if not path.is_file():
        raise ConfigurationError(
            f"the champion's archive {entry.archive} is not in {candidate.store}: put it back, or give"
            " paths.model_store"
        )
    return Champion(version=entry.version, archive=path, digest=entry.digest, entry=entry)


def default_archive(store: Path, model: str) -> str:
    """Return the file name of the archive that a server takes for the default one of a model."""
    remembered = read_json(store / f"{model}.serving.json")
    try:
        return str(remembered["default"]["archive"])
    except (KeyError, TypeError):
        return f"{model}.mar"


def digest_of(mar: Path) -> str:
    """Compute the digest of an archive's content, as a server tells it.

    Raises:
        ConfigurationError: It is no archive.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(mar) as archive:
            archive.extractall(folder)
            return str(content_digest(Path(folder)))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{mar} is no archive: {error}") from error


def version_of(mar: Path) -> str:
    """Read the version that an archive carries."""
    try:
        with zipfile.ZipFile(mar) as archive:
            return str(json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{mar} is no archive: {error}") from error


def _of_next_version(
    settings: Settings, entries: list[Entry], weights_sha256: str
) -> tuple[Settings, Mapping[str, Any]]:
    """Make the archive under the version that has its content already, else under the next."""

    def made(version: str) -> tuple[Settings, Mapping[str, Any]]:
        own = waiting(replace(settings, model=replace(settings.model, version=version)))
        return own, ensure_archive(own)

    alike = [entry for entry in entries if entry.tags.get(WEIGHTS) == weights_sha256]
    for entry in sorted(alike, key=lambda entry: entry.tags.get(STATUS) != RELEASED):
        own, record = made(entry.version)
        if record["digest"] == entry.digest:
            return own, record
    return made(_after([entry.version for entry in entries]))


def _after(versions: list[str]) -> str:
    """Return the version after the highest whose parts are numbers."""
    numbers = [tuple(map(int, v.split("."))) for v in versions if all(p.isdigit() for p in v.split("."))]
    if not numbers:
        return FIRST_VERSION
    *front, last = max(numbers)
    return ".".join(map(str, [*front, last + 1]))
