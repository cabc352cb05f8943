"""The verb `archive`: a reproducible `.mar` for TorchServe and the record of what it is."""

import logging
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from imagebatch_archive import (  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
    MODULES,
    PARITY,
    content_digest,
    file_digest,
    module_path,
)
from imagebatch_pixels import decode  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker

from imagebatch_training.archive.golden import golden_set
from imagebatch_training.archive.mar import (
    DEFAULT,
    archive_name,
    collect_files,
    file_stem,
    pack,
    render_model_config,
)
from imagebatch_training.archive.review import review_threshold
from imagebatch_training.errors import DataError
from imagebatch_training.export.graphs import EXACT, check_export, load_served_model
from imagebatch_training.files import publish, read_json, sha256_file, sha256_json, write_json
from imagebatch_training.fit.report import require_report, served_test
from imagebatch_training.images.data import DataSet, require_data
from imagebatch_training.settings import Model, Release, Settings, model_path

log = logging.getLogger(__name__)

CHECKED_IMAGES = 64
# Of `release`: what an archive of another engine than the default one is made with.
_FITTED = ("agreement", "margin_agreement", "images", "allow_unpredicted")


def ensure_archive(settings: Settings) -> dict[str, Any]:
    """Return the record of the archive of the last training; make the archive where it is missing or stale.

    Raises:
        ConfigurationError: There is no trained model, or a file of the handler is missing.
        DataError: The model never names a class on the test images, or an exported graph does not agree with
            it; or the archive does not reach `release.agreement`: then there is not an older one, either.
    """
    report, data = require_report(settings), require_data(settings)
    _require_every_class(report, settings.release)
    mar, record_path = archive_paths(settings)
    review = review_threshold(settings, data)
    declared = {"review": review["threshold"]} if review else {}
    config = render_model_config(Path(settings.paths.handlers), settings.model, declared)
    key = _key(settings, report, config)
    record: dict[str, Any] | None = read_json(record_path)
    complete = mar.is_file() and golden_path(settings).is_file()
    if record and record.get("key") == key and complete and sha256_file(mar) == record["mar_sha256"]:
        return record
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        labels = list(data.labels.classes)
        collect_files(settings, labels, config, folder)
        exact = [*EXACT, *({settings.model.engine} & {"onnxruntime"})]
        sample = _sample(data, settings.model)
        worst = check_export(load_served_model(model_path(settings)), folder, sample, exact)
        log.info("the exported graphs agree with the trained model within %.2g", worst)
        if settings.model.engine != DEFAULT:
            _release(settings, data, folder)
        with publish(mar) as new:
            pack(folder, settings.model, new)
            record = _record(settings, report, labels, new, folder) | {"key": key}
            record |= {**declared, "review_on_validation": review} if review else {}
            golden = golden_set(folder, [example.path(data.images) for example in data.labels.examples])
            record_path.unlink(missing_ok=True)  # never a record beside an archive that it does not describe
        write_json(golden_path(settings), golden)
    write_json(record_path, record)
    return record


def _require_every_class(report: dict[str, Any], release: Release) -> None:
    absent = served_test(report).get("never_predicted")  # a report of an earlier version has none
    if absent and not release.allow_unpredicted:
        raise DataError(
            f"the trained model names {', '.join(absent)} on no test image: add images of it, or"
            " take the archive as it is with release.allow_unpredicted=true"
        )


def archive_paths(settings: Settings) -> tuple[Path, Path]:
    """Return the paths of the archive and of its record."""
    store, name = Path(settings.paths.model_store), file_stem(settings.model)
    return store / f"{name}.mar", store / f"{name}.json"


def golden_path(settings: Settings) -> Path:
    """Return the path of the golden images."""
    return Path(settings.paths.model_store) / f"{file_stem(settings.model)}.golden.json"


def _sample(data: DataSet, model: Model) -> list[torch.Tensor]:
    """Decode up to 64 images, evenly spread over the data set."""
    examples = data.labels.examples[:: max(1, len(data.labels.examples) // CHECKED_IMAGES)]
    files = [example.path(data.images) for example in examples[:CHECKED_IMAGES]]
    return [decode(file.read_bytes(), **model.decoding) for file in files]


def _key(settings: Settings, report: dict[str, Any], config: str) -> str:
    handlers = Path(settings.paths.handlers)
    modules = _modules(handlers)
    model = [archive_name(settings.model), settings.model.version, settings.model.crop]
    model += (
        []
        if settings.model.engine == DEFAULT
        else [settings.seed, *(getattr(settings.release, name) for name in _FITTED)]
    )
    versions = {name: version(name) for name in ("torch", "openvino", "torch-model-archiver")}
    return sha256_json([model, modules, config, report["served"], report["run_id"], report["data"], versions])


def _modules(handlers: Path) -> dict[str, str]:
    """Return the SHA-256 of the archive's modules; of one that is missing, packing will tell."""
    found = {}
    for name in MODULES:
        with suppress(FileNotFoundError):
            found[name] = sha256_file(module_path(name, handlers))
    return found


def _release(settings: Settings, data: DataSet, folder: Path) -> None:
    """Add what the engine needs and the certificate; refuse what does not reach the threshold."""
    from imagebatch_training.archive import parity  # noqa: PLC0415 - not for the default archive
    from imagebatch_training.export.precision import add_precision  # noqa: PLC0415 - not for the default archive

    add_precision(settings, data, folder)
    certificate = parity.certify(settings, data, folder, archive_name(settings.model))
    mar = archive_paths(settings)[0]
    write_json(mar.with_suffix(".parity.json"), certificate)
    try:
        parity.require_parity(certificate)
    except DataError:
        mar.unlink(missing_ok=True)  # what stood there was released by another certificate
        raise
    log.info("%s", parity.render(certificate))
    write_json(folder / PARITY, certificate)


def _record(
    settings: Settings, report: dict[str, Any], labels: list[str], mar: Path, folder: Path
) -> dict[str, Any]:
    model = settings.model
    return {
        "name": archive_name(model),
        "version": model.version,
        "engine": model.engine,
        "mar_sha256": sha256_file(mar),
        "mar_bytes": mar.stat().st_size,
        "digest": content_digest(folder),
        "parity": file_digest(folder / PARITY),
        "labels": labels,
        "input": {"resize": model.resize, "crop": model.crop, "channels": 3, "pixels": model.pixels}
        | model.view.declared()
        | model.square.declared(),
        "training": {
            "run_id": report["run_id"],
            "method": report["served"]["method"],
            "weights_sha256": report["served"]["weights_sha256"],
            "imagenet_weights": report["weights"],
        },
        "accuracy": [_headline(result) for result in report["results"]],
    }


def _headline(result: dict[str, Any]) -> dict[str, Any]:
    test = result["test"]
    names = ("images", "accuracy", "wilson", "block_bootstrap", "majority")
    return {name: result[name] for name in ("split", "method")} | {
        name: test[name] for name in names if name in test
    }
