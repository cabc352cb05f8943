"""The verb `import`: reads a model, makes its archive, proves it, and keeps it if the proof holds."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from imagebatch_archive import (  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker
    PARITY,
    content_digest,
    file_digest,
)

from imagebatch_training.archive.golden import golden_set
from imagebatch_training.archive.loaded import load_archive
from imagebatch_training.archive.mar import copy_modules, pack, render_model_config
from imagebatch_training.errors import DataError
from imagebatch_training.export.graphs import write_graph
from imagebatch_training.files import publish, sha256_file, write_json, write_text
from imagebatch_training.imports.answers import Doubles, raw_answers
from imagebatch_training.imports.graph import served_graph
from imagebatch_training.imports.pictures import Picture
from imagebatch_training.imports.plan import Plan, make_plan
from imagebatch_training.imports.proof import Evidence, archive_logits, certify
from imagebatch_training.imports.request import Request
from imagebatch_training.imports.transforms import Opened, open_picture
from imagebatch_training.imports.truth import Truth, known_by_folders
from imagebatch_training.progress import progress
from imagebatch_training.settings import Model, Settings

_HEAD: Final = ("head", "thresholds", "quantity")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import has made.

    Attributes:
        path: Of the archive.
        record: What it is, as `<name>.json` beside it.
        certificate: Its proof, as `<name>.parity.json` beside it and `parity.json` in it.
        plan: What was settled.
    """

    path: Path
    record: Mapping[str, Any]
    certificate: Mapping[str, Any]
    plan: Plan


def import_model(settings: Settings, request: Request, presets: Path) -> Imported:
    """Import a model.

    Args:
        settings: Where archives and the handler's files are, what agreement is asked for, how files are seen.
        request: What is imported, and what is said of it.
        presets: Folder of the shipped preprocessing.

    Raises:
        ConfigurationError: Something is not said, or cannot be.
        DataError: The model cannot be served, or the proof fails; an archive that stood there stays.
        DownloadError: Published weights are not there and cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as temporary:
        drawn, folder = Path(temporary, "drawn"), Path(temporary, "archive")
        drawn.mkdir()
        folder.mkdir()
        plan = make_plan(request, presets, drawn)
        files, raw = _library_answers(plan, settings)
        plan = plan.with_outputs(raw)
        model = _fill(plan, settings, folder)
        evidence = _evidence(plan, settings, files, raw, folder)
        certificate = certify(evidence, _truth(plan, request, evidence))
        write_json(folder / PARITY, certificate)
        return _publish(plan, Path(settings.paths.model_store), model, evidence, certificate)


def _library_answers(plan: Plan, settings: Settings) -> tuple[list[Picture], Doubles]:
    """Ask the model's own library about every image that Pillow reads: those, and (images, classes)."""
    transform, _ = plan.own_transform
    files, rows = [], []
    for file in progress(plan.pictures, f"asking {plan.source.network.computes}"):
        picture = open_picture(file.path, settings.model.view)
        if picture is not None:
            files.append(file)
            rows.append(raw_answers(plan.source.network, plan.pre, plan.output, transform, [picture])[0])
    if not files:
        raise DataError(f"Pillow reads none of the {len(plan.pictures)} images: give others by --images")
    return files, np.stack(rows)


def _fill(plan: Plan, settings: Settings, folder: Path) -> Model:
    """Put everything that the archive holds, but for its certificate, into a folder."""
    pre = plan.pre
    model = replace(
        settings.model,
        name=plan.name,
        version=plan.version,
        engine="openvino",
        resize=pre.resize,
        crop=pre.crop,
        pixels=pre.pixels,
        contrast="as-is",  # a data set's recipe is none of a model that was trained elsewhere
    )
    handlers = Path(settings.paths.handlers)
    copy_modules(handlers, folder)
    more = pre.square.declared() | plan.head.config()
    write_text(folder / "model-config.yaml", render_model_config(handlers, model, more))
    if plan.head.has_labels:
        names = {str(index): name for index, name in enumerate(plan.head.names[0])}
        write_json(folder / "index_to_name.json", names)
    graph = served_graph(plan.source.network, pre, plan.output, plan.head.name)
    write_graph(graph, folder / "model.xml")
    return model


def _evidence(plan: Plan, settings: Settings, files: list[Picture], raw: Doubles, folder: Path) -> Evidence:
    model = load_archive(folder)
    answers = archive_logits(model, files)
    rows = [row for row, found in enumerate(answers) if found is not None]
    if not rows:
        raise DataError(f"the archive reads none of the {len(files)} images: give others by --images")
    kept = [files[row] for row in rows]
    return Evidence(
        name=plan.name,
        source=plan.source,
        pre=plan.pre,
        output=plan.output,
        head=plan.head,
        raw=raw[rows],
        answers=np.stack([found for found in answers if found is not None]),
        described=model.describe(),
        folder=folder,
        shown=Opened([file.path for file in kept], settings.model.view),
        files=kept,
        drawn=plan.drawn,
        left_out=len(plan.pictures) - len(kept),
        pixels=plan.own_transform[1],
        agreement=settings.release.agreement,
    )


def _truth(plan: Plan, request: Request, evidence: Evidence) -> Truth | None:
    """Find who knows what the model should answer."""
    if request.expect is not None:
        return plan.head.read(request.expect, evidence.files, evidence.agreement)
    return known_by_folders(evidence.files, plan.head.names[0]) if plan.head.one_class else None


def _publish(
    plan: Plan, store: Path, model: Model, evidence: Evidence, certificate: dict[str, Any]
) -> Imported:
    """Pack the archive, and write beside it what it is, its certificate and its golden images."""
    path, folder = store / f"{plan.name}.mar", evidence.folder
    beside = {kind: path.with_name(f"{plan.name}.{kind}.json") for kind in ("golden", "parity")}
    possible = evidence.head.possible(evidence.values)
    golden = golden_set(
        folder, [file.path for file, there in zip(evidence.files, possible, strict=True) if there]
    )
    with publish(path) as new:
        pack(folder, model, new)
        record = {
            "name": plan.name,
            "version": plan.version,
            "engine": model.engine,
            "mar_sha256": sha256_file(new),
            "mar_bytes": new.stat().st_size,
            "digest": content_digest(folder),
            "parity": file_digest(folder / PARITY),
            "labels": list(plan.head.names[0]),
            **{key: evidence.described[key] for key in _HEAD if key in evidence.described},
            "input": evidence.described["input"],
            "import": {
                "source": plan.source.kind,
                "files": dict(plan.source.sha256),
                "preprocessing": asdict(plan.pre),
                "declared_by": plan.origins,
            },
        }
        path.with_suffix(".json").unlink(
            missing_ok=True
        )  # never a record beside an archive that it does not describe
    write_json(beside["golden"], golden)
    write_json(beside["parity"], certificate)
    write_json(path.with_suffix(".json"), record)
    return Imported(path=path, record=record, certificate=certificate, plan=plan)
