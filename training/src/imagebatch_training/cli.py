"""The command `imagebatch-train`: parses, calls one function, prints, exits."""

import argparse
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from imagebatch_training.configuration import CONFIG_DIR, load_settings
from imagebatch_training.errors import TrainingError
from imagebatch_training.imports.request import Request, add_arguments
from imagebatch_training.settings import RELEASE_STEPS, Settings
from imagebatch_training.sweeps import Point, expand

_CONFIG = "folder with config.yaml, or with preset/ or data/ of your own beside the shipped ones"
Output = tuple[str, dict[str, Any]]
"""What a verb says: to a person, and with `--json`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments without the program's name; None: the process's.

    Returns:
        0, or the error's exit code (see `errors`).
    """
    arguments = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr, force=True)
    for noisy in ("mlflow", "alembic", "openvino", "matplotlib", "onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        arguments.points = (
            expand(arguments.overrides)
            if arguments.verb is _sweep
            else [Point(overrides=arguments.overrides)]
        )
        settings = load_settings(arguments.config_dir, arguments.points[0].overrides)
        text, value = arguments.verb(settings, arguments)
    except TrainingError as error:
        sys.stderr.write(f"imagebatch-train: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - nothing ends with a traceback: the details are kept in a file
        sys.stderr.write(f"imagebatch-train: {_unforeseen(error)}\n")
        return TrainingError.exit_code
    sys.stdout.write((json.dumps(value) if arguments.json else text.rstrip()) + "\n")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments; overrides may also stand behind flags, where argparse does not look for them."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if any(word.startswith("-") or "=" not in word for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.overrides += rest
    return arguments


def _unforeseen(error: Exception) -> str:
    """Keep an error's details in a file, and say in one line what happened and where they are."""
    happened = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    try:
        descriptor, path = tempfile.mkstemp(prefix="imagebatch-train-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as stream:
            stream.writelines(traceback.format_exception(error))
    except OSError:
        return f"not expected: {happened}; its details could not be written"
    return f"not expected: {happened}; details in {path}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="imagebatch-train", description=__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, verb, text in _VERBS:
        sub = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(verb=verb)
        if name == "evaluate":
            asked = sub.add_mutually_exclusive_group(required=True)
            asked.add_argument("--predictions", type=Path, help="a run's output/predictions.csv")
            asked.add_argument(
                "--archive", type=Path, help="a .mar, asked about every labelled image of the data set"
            )
            sub.add_argument("--picture", type=Path, help="draw accuracy against coverage: a .png or .svg")
        if name == "train":
            several = "train every combination of KEY=a,b,c: the verb sweep"
            sub.add_argument(
                "-m", "--multirun", dest="verb", action="store_const", const=_sweep, help=several
            )
        if name == "parity":
            sub.add_argument("--archive", type=Path, help="a .mar (default: the one that `archive` makes)")
        if name == "layout":
            sub.add_argument("--archive", type=Path, help="a .mar (default: the one that `archive` makes)")
            sub.add_argument(
                "--folder", type=Path, default=Path("var/kserve"), help="where to (default: var/kserve)"
            )
        if name == "import":
            add_arguments(sub)
        if name == "release":
            _add_release(sub)
        if name == "folds":
            sub.add_argument(
                "--plan", type=Path, help="what is compared (default: conf/folds/<data.name>.yaml)"
            )
            sub.add_argument("--processes", type=int, help="trainings side by side (default: one per core)")
        sub.add_argument("--config-dir", type=Path, default=CONFIG_DIR, help=_CONFIG)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, such as seed=1")
    return parser


def _add_release(sub: argparse.ArgumentParser) -> None:
    """Declare the flags of `release`; `imagebatch` takes what is not given from its own variables."""
    sub.add_argument("--until", choices=RELEASE_STEPS, default=RELEASE_STEPS[-1], help="the last step to do")
    sub.add_argument("--rollback", action="store_true", help="make the version before the champion it again")
    sub.add_argument("--withdraw", action="store_true", help="take the challenger back")
    sub.add_argument("--no-serve", action="store_true", help="tell the registry alone, no model server")
    sub.add_argument("--management-url", help="TorchServe's management API (IMAGEBATCH_MANAGEMENT_URL)")
    sub.add_argument("--api-url", help="its inference API (IMAGEBATCH_API_URL)")
    sub.add_argument("--key-file", help="its key_file.json (IMAGEBATCH_KEY_FILE)")
    sub.add_argument(
        "--workers", type=int, default=2, help="worker processes of the new version (default: 2)"
    )
    sub.add_argument("--shadow-runs", help="where finished runs are: compare both versions on one's images")
    sub.add_argument("--shadow-run", help="which run (default: the newest of this model)")
    sub.add_argument("--shadow-images", type=int, default=400, help="images of it (default: 400)")
    sub.add_argument("--shadow-page", type=Path, default=Path("var/release/shadow.html"), help="the page")


# Each verb imports what it needs: torch and MLflow cost seconds, and `--help` and errors shall be quick.
def _weights(settings: Settings, _: argparse.Namespace) -> Output:
    from imagebatch_training.backbone.weights import ensure_weights  # noqa: PLC0415 - `--help` shall be quick

    file = ensure_weights(settings)
    value = {"path": str(file.path), "sha256": file.sha256, "source": file.source}
    return f"{file.path} from {file.source}, sha256 {file.sha256}", value


def _data(settings: Settings, _: argparse.Namespace) -> Output:
    from imagebatch_training.images.data import ensure_data, split_sizes  # noqa: PLC0415 - `--help` shall be quick

    data = ensure_data(settings)
    summary, sizes = data.summary(), split_sizes(data.labels)
    counts = ", ".join(f"{count} {name}" for name, count in summary.items())
    value = {"csv": str(data.csv), "images": str(data.images), "counts": summary, "splits": sizes}
    return f"{data.csv}: {counts}", value


def _train(settings: Settings, _: argparse.Namespace) -> Output:
    from imagebatch_training.fit.report import render_report  # noqa: PLC0415 - `--help` shall be quick
    from imagebatch_training.fit.train import ensure_trained  # noqa: PLC0415 - `--help` shall be quick

    report = ensure_trained(settings)
    return render_report(report), report


def _sweep(_: Settings, arguments: argparse.Namespace) -> Output:
    from imagebatch_training.fit.sweep import plan, render_sweep, run_sweep  # noqa: PLC0415 - `--help` shall be quick

    # All of them first: a value that is refused ends no sweep half way.
    jobs = [plan(point, load_settings(arguments.config_dir, point.overrides)) for point in arguments.points]
    summary = run_sweep(jobs)
    return render_sweep(summary), summary


def _report(settings: Settings, _: argparse.Namespace) -> Output:
    from imagebatch_training.fit.report import render_report, require_report  # noqa: PLC0415 - `--help` shall be quick

    report = require_report(settings)
    return render_report(report), report


def _archive(settings: Settings, _: argparse.Namespace) -> Output:
    from imagebatch_training.archive.archive import archive_paths, ensure_archive  # noqa: PLC0415 - `--help` shall be quick

    record = ensure_archive(settings)
    path, _record_path = archive_paths(settings)
    return f"{path} sha256 {record['mar_sha256']}, content {record['digest']}", {"path": str(path)} | record


def _parity(settings: Settings, arguments: argparse.Namespace) -> Output:
    from imagebatch_training.archive.archive import archive_paths  # noqa: PLC0415 - `--help` shall be quick
    from imagebatch_training.archive.parity import check_parity, render, require_parity  # noqa: PLC0415 - `--help` shall be quick

    certificate = check_parity(settings, arguments.archive or archive_paths(settings)[0])
    require_parity(certificate)
    return render(certificate), certificate


def _layout(settings: Settings, arguments: argparse.Namespace) -> Output:
    from imagebatch_training.archive.archive import archive_paths  # noqa: PLC0415 - `--help` shall be quick
    from imagebatch_training.archive.layout import lay_out  # noqa: PLC0415 - `--help` shall be quick

    mar = arguments.archive or archive_paths(settings)[0]
    made = lay_out(mar, arguments.folder, Path(settings.paths.handlers))
    files = ", ".join(made["written"]) or "nothing: all is there"
    said = f"{made['folder']} of {made['digest']}: wrote {files}"
    return "\n".join(filter(None, [said, made["left_out"] and f"left out {made['left_out']}"])), made


def _evaluate(settings: Settings, arguments: argparse.Namespace) -> Output:
    from imagebatch_training.evaluate import draw_coverage, evaluate, render, require_drawable  # noqa: PLC0415 - `--help` shall be quick

    require_drawable(arguments.picture)
    if arguments.archive:
        from imagebatch_training.archive import evaluated  # noqa: PLC0415 - `--help` shall be quick

        result = evaluated.evaluate_archive(settings, arguments.archive)
        text = evaluated.render(result)
    else:
        result = evaluate(settings, arguments.predictions)
        text = render(result)
    if arguments.picture:
        draw_coverage(result["coverage"], arguments.picture)
    return text, result


def _folds(settings: Settings, arguments: argparse.Namespace) -> Output:
    from imagebatch_training.folds.plan import read_plan  # noqa: PLC0415 - `--help` shall be quick

    path = arguments.plan or arguments.config_dir / "folds" / f"{settings.data.name}.yaml"
    plan = read_plan(path, arguments.config_dir, arguments.overrides)
    from imagebatch_training.folds.compare import compare, render  # noqa: PLC0415 - `--help` shall be quick

    result = compare(plan, processes=arguments.processes or len(os.sched_getaffinity(0)))
    return render(result), result


def _import(settings: Settings, arguments: argparse.Namespace) -> Output:
    request = Request.from_arguments(arguments)  # before what takes seconds
    from imagebatch_training.imports.report import render  # noqa: PLC0415 - `--help` shall be quick
    from imagebatch_training.imports.run import import_model  # noqa: PLC0415 - `--help` shall be quick

    shipped = CONFIG_DIR / "preprocessing"
    own = arguments.config_dir / shipped.name
    imported = import_model(settings, request, own if own.is_dir() else shipped)
    value = {"path": str(imported.path)} | dict(imported.record) | {"certificate": imported.certificate}
    return render(imported), value


def _release(settings: Settings, arguments: argparse.Namespace) -> Output:
    from imagebatch_training.release.request import answer  # noqa: PLC0415 - `--help` shall be quick

    told = answer(settings, arguments)
    return "\n".join(told.lines), {"stage": "release"} | told.figures


_VERBS: tuple[tuple[str, Callable[[Settings, argparse.Namespace], Output], str], ...] = (
    ("weights", _weights, "fetch the ImageNet weights"),
    ("data", _data, "list the images and write labels.csv with both splits"),
    ("train", _train, "linear probe and fine-tune on both splits, logged to MLflow"),
    ("sweep", _sweep, "train every combination of KEY=a,b,c, and rank them on validation images"),
    ("folds", _folds, "compare recipes by cross-validation on whole blocks"),
    ("report", _report, "print the last training as a Markdown table"),
    ("archive", _archive, "export the served model and pack it for TorchServe"),
    ("parity", _parity, "certify how far an archive's answers are from float32 torch"),
    ("layout", _layout, "lay an archive out as KServe's storage, for TorchServe and OpenVINO"),
    ("import", _import, "make a served archive of a model that you have, and prove it"),
    ("evaluate", _evaluate, "compare a run's predictions, or an archive's answers, with the known labels"),
    ("release", _release, "from a training to the served champion: gates, registry, server, way back"),
)
