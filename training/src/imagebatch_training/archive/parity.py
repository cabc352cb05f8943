"""The verb `parity`: how far an archive's answers are from float32 torch on plain Pillow pixels.

Images are those that nothing was fitted on: the labelled images of the test blocks, and the uncertain images,
whose best two classes are close more often.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from imagebatch_archive import PARITY  # type: ignore[import-untyped]  # a flat module of a .mar: no type marker

from imagebatch_training import metrics
from imagebatch_training.archive.loaded import load_archive, unpacked
from imagebatch_training.archive.reference import reference_logits
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import read_json, sha256_file, write_json
from imagebatch_training.images.data import DataSet, require_data
from imagebatch_training.progress import progress
from imagebatch_training.settings import Settings, model_path


def check_parity(settings: Settings, mar: Path) -> dict[str, Any]:
    """Certify an archive, and write the certificate beside it.

    Args:
        settings: Which data set and trained weights; `release.agreement`.
        mar: The archive. `<name>.parity.json` is written beside it, whatever it says.

    Returns:
        The certificate, see `certify`.

    Raises:
        ConfigurationError: The archive is missing or holds other code than this.
        DataError: There is nothing to compare on.
    """
    with unpacked(settings, mar) as folder:
        if "source" in ((read_json(folder / PARITY) or {}).get("reference") or {}):
            raise ConfigurationError(f"{mar} is of an imported model: imagebatch-train import proves it")
        certificate = certify(settings, require_data(settings), folder, mar.stem)
    write_json(mar.with_suffix(".parity.json"), certificate)
    return certificate


def certify(settings: Settings, data: DataSet, folder: Path, name: str) -> dict[str, Any]:
    """Compare an unpacked archive, from file bytes to probabilities, with the trained model.

    Args:
        settings: Trained weights; `release.agreement`.
        data: With the block split.
        folder: The archive's files.
        name: The archive's name.

    Returns:
        `name`, `engine` (as the archive describes it), `graphs` (digests), `reference`, `threshold`, `sets`
        (see `compare`) and `passed`.

    Raises:
        DataError: There is nothing to compare on.
    """
    examples = data.labels.examples
    sets = {
        "test images": data.labels.members("block", "test"),
        "uncertain images": np.array([i for i, e in enumerate(examples) if not e.label], dtype=np.int64),
    }
    sets = {title: positions for title, positions in sets.items() if len(positions)}
    if not sets:
        raise DataError("no image is held out: raise data.test")
    files = [example.path(data.images) for example in examples]
    model = load_archive(folder)
    threshold = settings.release.agreement
    compared = []
    for title, positions in sets.items():
        wanted = reference_logits(settings, [files[i] for i in positions])
        answers = _answers(model, [files[i] for i in positions], title)
        targets, blocks = data.labels.targets()[positions], data.labels.blocks()[positions]
        compared.append({"name": title} | compare(wanted, answers, targets, blocks))
    described = model.describe()
    return {
        "certificate": "imagebatch parity 1",
        "name": name,
        "engine": {key: described[key] for key in ("engine", "precision", "cascade") if key in described},
        "graphs": graph_digests(folder),
        "input": described["input"],
        "reference": {
            "weights_sha256": sha256_file(model_path(settings)),
            "computes": f"eager float32, torch {version('torch')}",
            "pixels": f"Pillow {version('pillow')}: bilinear with antialias, centre crop",
        },
        "threshold": {"agreement": threshold},
        "sets": compared,
        "passed": all(one["agreement"] >= threshold for one in compared),
    }


def compare(
    wanted: metrics.Floats, answers: metrics.Floats, targets: metrics.Integers, blocks: metrics.Integers
) -> dict[str, Any]:
    """Compare logits (images, classes) with the reference's.

    Args:
        wanted: Of the reference.
        answers: Of the archive.
        targets: Class index per image, -1 where it is not known.
        blocks: Block per image.

    Returns:
        `images`, `agreeing`, `agreement` (share with the same best class) and its Wilson interval; over the
        images, the `largest` and `mean` of the largest change of a class's probability; where classes are
        known, `accuracy`: of both, their difference and its 95 % interval, by drawing whole blocks, paired.
    """
    same = wanted.argmax(1) == answers.argmax(1)
    moved = np.abs(metrics.softmax(wanted) - metrics.softmax(answers)).max(1)
    result: dict[str, Any] = {
        "images": len(same),
        "agreeing": int(same.sum()),
        "agreement": round(float(same.mean()), 6),
        "interval": _rounded(metrics.wilson(int(same.sum()), len(same))),
        "probability_change": {
            "largest": round(float(moved.max()), 6),
            "mean": round(float(moved.mean()), 6),
        },
    }
    known = targets >= 0
    if known.all():
        before, after = wanted.argmax(1) == targets, answers.argmax(1) == targets
        change = after.astype(np.int64) - before.astype(np.int64)
        result["accuracy"] = {
            "reference": round(float(before.mean()), 6),
            "archive": round(float(after.mean()), 6),
            "change": round(float(change.mean()), 6),
            "interval": _rounded(metrics.block_bootstrap(change, blocks)),
            "blocks": len(np.unique(blocks)),
        }
    return result


def require_parity(certificate: Mapping[str, Any]) -> None:
    """Refuse an archive whose certificate does not reach the threshold.

    Raises:
        DataError: It does not.
    """
    threshold = certificate["threshold"]["agreement"]
    for one in certificate["sets"]:
        if one["agreement"] < threshold:
            raise DataError(
                f"{certificate['name']} names float32 torch's class on {one['agreement']:.2%} of the "
                f"{one['images']} {one['name']}, {threshold:.2%} are asked for: it is not released; "
                "serve a cascade, or raise release.margin_agreement"
            )


def render(certificate: Mapping[str, Any]) -> str:
    """Render a certificate as a few lines of text."""
    engine = certificate["engine"]
    lines = [f"{certificate['name']}: {engine['engine']}, {engine['precision']}"]
    for one in certificate["sets"]:
        low, high = one["interval"]
        moved = one["probability_change"]
        lines.append(
            f"  {one['name']}: the same class on {one['agreeing']} of {one['images']} "
            f"({one['agreement']:.2%}, 95 % interval {low:.2%} to {high:.2%}); "
            f"a probability moves by {moved['mean']:.4f} on average, {moved['largest']:.4f} at most"
        )
        if "accuracy" in one:
            accuracy = one["accuracy"]
            low, high = accuracy["interval"]
            lines.append(
                f"    accuracy {accuracy['reference']:.3f} to {accuracy['archive']:.3f}, "
                f"change {accuracy['change']:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
            )
    return "\n".join(lines)


def _answers(model: Any, files: Sequence[Path], title: str) -> metrics.Floats:
    logits = [model.infer(model.decode(file.read_bytes())) for file in progress(files, f"scoring {title}")]
    return np.stack(logits).astype(np.float64)


def graph_digests(folder: Path) -> dict[str, str]:
    """Return the hex SHA-256 of every file of a graph in an unpacked archive."""
    return {file.name: sha256_file(file) for file in sorted(folder.iterdir()) if _is_graph(file)}


def _is_graph(file: Path) -> bool:
    return file.suffix in (".xml", ".bin", ".onnx", ".pt2") or file.name == "cascade.json"


def _rounded(interval: metrics.Interval) -> list[float]:
    return [round(end, 6) for end in interval]
