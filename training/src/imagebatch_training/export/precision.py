"""What an archive needs besides the exported graphs, for the engine that it is served with."""

from pathlib import Path

import openvino as ov  # type: ignore[import-untyped]  # ships no type marker

from imagebatch_training.export import refit
from imagebatch_training.export.calibration import Calibration, load_calibration
from imagebatch_training.export.cascade import fit_margin
from imagebatch_training.export.graphs import write_graph
from imagebatch_training.files import write_json
from imagebatch_training.images.data import DataSet
from imagebatch_training.settings import Settings


def add_precision(settings: Settings, data: DataSet, folder: Path) -> None:
    """Write the cheap graph, with its fitted classifier, and the margin where the engine is a cascade.

    Args:
        settings: `model.engine`; `release.images` and `release.margin_agreement`.
        data: Its training and validation blocks are the calibration images.
        folder: With `model.xml`. Gets `bf16.*` or `int8.*`, and `cascade.json`.

    Raises:
        ConfigurationError: This machine does not compute in the precision asked for.
    """
    precision = settings.model.engine.removeprefix("openvino").strip("-").partition("-")[0]
    if precision not in ("bf16", "int8"):
        return
    calibration = load_calibration(settings, data)
    graph, hint = _cheap_graph(precision, folder / "model.xml", calibration)
    count = len(calibration.members)
    exact = ov.Core().read_model(folder / "model.xml")
    wanted, _ = refit.compute(exact, "f32", calibration.images(calibration.members), count)
    logits, features = refit.compute(graph, hint, calibration.images(calibration.members), count)
    fitted = refit.refit(logits, features, wanted, calibration.folds)
    refit.install(graph, fitted)
    write_graph(graph, folder / f"{precision}.xml")
    if settings.model.engine.endswith("-cascade"):
        fit = fit_margin(fitted.held_out, wanted, settings.release.margin_agreement)
        write_json(folder / "cascade.json", fit)


def _cheap_graph(precision: str, path: Path, calibration: Calibration) -> tuple[ov.Model, str]:
    if precision == "bf16":
        return ov.Core().read_model(path), "bf16"
    from imagebatch_training.export.quantise import quantise  # noqa: PLC0415 - NNCF costs a second, only int8 needs it

    return quantise(path, calibration), "f32"
