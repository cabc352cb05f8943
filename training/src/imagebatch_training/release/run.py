"""The verb `release`: from a training to the served champion, step by step; each step is done once.

A step that fails leaves the old version serving, and the new one neither registered at the server nor in its
store. The same command again goes on where it stopped.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from imagebatch_training.archive.mar import archive_name
from imagebatch_training.backbone.weights import ensure_weights
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.files import read_json, sha256_file
from imagebatch_training.fit.report import served_test
from imagebatch_training.fit.train import ensure_trained
from imagebatch_training.images.data import ensure_data
from imagebatch_training.release.candidate import (
    Candidate,
    default_archive,
    find_champion,
    make_candidate,
    waiting,
)
from imagebatch_training.release.handover import Asked, Handover
from imagebatch_training.release.judged import judge_candidate
from imagebatch_training.release.provenance import data_digest, git_commit, write_provenance, write_sbom
from imagebatch_training.release.registry import (
    ARCHIVE,
    CHALLENGER,
    CHAMPION,
    DIGEST,
    PREVIOUS,
    VERSION,
    WEIGHTS,
    Entry,
    Registry,
)
from imagebatch_training.release.server import Server
from imagebatch_training.release.told import Told
from imagebatch_training.settings import Settings


def release(settings: Settings, asked: Asked) -> Told:
    """Do every step that is not done yet.

    Args:
        settings: All of the configuration.
        asked: How far, and where.

    Returns:
        A line for each step that this call has reached.

    Raises:
        ConfigurationError: A version is taken, something is missing, the model cannot be loaded.
        DataError: A gate has stopped the challenger.
        ServerError: The server or the registry does not answer.
    """
    told = Told()
    ensure_weights(settings)
    data = ensure_data(settings)
    report = ensure_trained(settings)
    _tell_training(report, told)
    if asked.until == "train":
        return told
    registry = Registry(settings.tracking, archive_name(settings.model))
    candidate = make_candidate(settings, registry, report["served"]["weights_sha256"])
    digest, size = candidate.record["digest"], candidate.record["mar_bytes"] / 1e6
    text = f"{candidate.archive.name}, {size:.1f} MB, {digest}"
    told.step("archive", text, version=candidate.version, digest=digest)
    if asked.until == "archive":
        return told
    champion = find_champion(candidate, registry, default_archive(candidate.store, candidate.name))
    judge_candidate(candidate, champion, data, told.step)
    if asked.until == "gates":
        return told
    source = {
        "mlflow_run": report["run_id"],
        "weights_sha256": report["served"]["weights_sha256"],
        "data": data_digest(data),
        "git_commit": git_commit(Path(settings.paths.handlers)),
    }
    entry = _register(candidate, registry, source, told)
    if asked.until != "register":
        kept = champion.version if champion else ""
        handover = Handover(
            candidate=candidate, entry=entry, kept=kept, registry=registry, asked=asked, told=told
        )
        handover.go(champion)
    return told


def roll_back(settings: Settings, server: Server | None) -> Told:
    """Make the version before the champion the champion again, at the server and in the registry.

    Raises:
        ConfigurationError: There is no version to go back to.
    """
    told = Told()
    registry = Registry(settings.tracking, archive_name(settings.model))
    before, back = registry.named(CHAMPION), registry.named(PREVIOUS)
    if server:
        version = server.roll_back()
        told.step("server", f"{version} is the default again", version=version)
        back = registry.known_as(version)
    if back is None:
        raise ConfigurationError("the registry knows no version before the champion: nothing is moved there")
    registry.move(PREVIOUS, before)
    registry.move(CHAMPION, back)
    told.step("registry", f"{CHAMPION} is version {back.version} again", version=back.version)
    return told


def withdraw(settings: Settings, server: Server | None) -> Told:
    """Take the challenger back, whatever it has reached: what is champion stays."""
    told = Told()
    registry = Registry(settings.tracking, archive_name(settings.model))
    entry = registry.named(CHALLENGER)
    if entry is None:
        told.step("withdraw", "there is no challenger")
        return told
    model = replace(settings.model, version=entry.version)
    candidate = Candidate(
        settings=waiting(replace(settings, model=model)),
        store=Path(settings.paths.model_store),
        record={"digest": entry.digest},
    )
    champion = registry.named(CHAMPION)
    kept = champion.version if champion else (server.default() if server else "")
    Handover(
        candidate=candidate,
        entry=entry,
        kept="" if kept == entry.version else kept,
        registry=registry,
        asked=Asked(server=server),
        told=told,
    ).take_back("withdrawn")
    told.step("withdraw", f"{entry.version} is not served, and no challenger any more", version=entry.version)
    return told


def _tell_training(report: dict[str, Any], told: Told) -> None:
    test, run_id = served_test(report), report["run_id"]
    told.step(
        "train",
        f"{report['served']['method']}, accuracy {test['accuracy']:.3f} on {test['images']} test images,"
        f" MLflow run {run_id}",
        run_id=run_id,
        accuracy=test["accuracy"],
    )


def _register(candidate: Candidate, registry: Registry, source: dict[str, str], told: Told) -> Entry:
    """Write where the archive comes from, and make it the registry's challenger."""
    digest = candidate.record["digest"]
    found = [e for e in registry.entries() if (e.version, e.digest) == (candidate.version, digest)]
    tags = {
        VERSION: candidate.version,
        DIGEST: digest,
        ARCHIVE: candidate.archive.name,
        WEIGHTS: source["weights_sha256"],
        "imagebatch.data": source["data"],
        "imagebatch.git_commit": source["git_commit"],
    }
    entry = found[0] if found else registry.register(source["mlflow_run"], tags)
    said = _write_record(candidate, entry, source, told.figures["gates"]["gates"])
    champion = registry.named(CHAMPION)
    if champion is None or champion.number != entry.number:
        registry.move(CHALLENGER, entry)
    told.step(
        "register",
        f"version {entry.number} of {candidate.name} in the registry, {said}",
        registry_version=entry.number,
        signed=candidate.beside(".release.json.sig").is_file(),
    )
    return entry


def _write_record(candidate: Candidate, entry: Entry, source: dict[str, str], gates: list[Any]) -> str:
    """Write the record of a release, unless it is there; return what to say of it."""
    sbom = candidate.beside(".sbom.json")
    listed = sbom.is_file() or write_sbom(Path(candidate.settings.paths.handlers), sbom)
    record = {
        "release": "imagebatch release 1",
        "model": candidate.name,
        "version": candidate.version,
        "registry_version": entry.number,
        "archive": {
            "file": candidate.archive.name,
            "sha256": candidate.record["mar_sha256"],
            "digest": candidate.record["digest"],
        },
        **source,
        "sbom": {"file": sbom.name, "sha256": sha256_file(sbom)} if listed else None,
        "gates": gates,
    }
    path, key = candidate.beside(".release.json"), candidate.settings.release.signing_key
    if read_json(path) != record or key:
        write_provenance(path, record, key)
    signed = "signed" if path.with_name(f"{path.name}.sig").is_file() else "unsigned"
    return f"{path.name} ({signed}{'' if listed else ', no bill of materials: uv is not here'})"
