"""Agreement against speed, for every engine and for cascades of several margins.

    make up && make down        # once: weights, images, a trained model
    training/.venv/bin/python -m benchmarks.cases.engines [--rounds 5] [--publish]

Makes the archives that are missing (var/benchmarks/engines/), those too that a release would refuse. In one
process: images per CPU-second, from file bytes to logits. Served: `imagebatch score` on a TorchServe of its
own, two workers per model. Rounds are interleaved. Needs a machine that does nothing else, about six minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from imagebatch_training.archive.archive import archive_paths, ensure_archive
from imagebatch_training.configuration import CONFIG_DIR, ENGINES, load_settings
from imagebatch_training.errors import TrainingError

from benchmarks.cases import engines_process, engines_served
from benchmarks.cases.engines_plot import plot
from benchmarks.lib import published
from benchmarks.lib.model import MODEL
from tools.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "parity.md"
PLOT = ROOT / "docs" / "img" / "engines.svg"
BASE = "openvino"


def main() -> int:
    """Measure, print, and keep what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--images", type=int, default=150, help="images a round in one process")
    parser.add_argument("--part", choices=("archives", "process", "served"), help="only this one")
    parser.add_argument(
        "--publish", action="store_true", help="keep the figures, write the page and the plot"
    )
    parser.add_argument("--store", type=Path, help="folder with all archives: make none")
    asked = parser.parse_args()
    store = asked.store or ROOT / "var" / "benchmarks" / "engines"
    try:
        settings = load_settings(CONFIG_DIR, MODEL.words()) if asked.store else make_archives(store)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    kept = published.RESULTS / "engines.json"
    result: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="imagebatch-engines-") as folder:
        if asked.part in (None, "process"):
            print("one process: decode, then every engine, in rounds", flush=True)
            result |= engines_process.measure(settings, store, Path(folder), asked.rounds, asked.images)
        if asked.part in (None, "served"):
            result["served"] = engines_served.measure(
                store, Path(settings.data.images), Path(folder), asked.rounds
            )
    if asked.part == "archives":
        return 0
    print(table(result))
    if asked.publish:
        published.keep("engines", {name: value for name, value in result.items() if name != "machine"})
        write_page(table(result))
        if "engines" in result:
            plot(result, PLOT)
    return 0


def make_archives(store: Path) -> Any:
    """Make one archive per engine; give the settings of the default one."""
    MODEL.require()
    own = [*MODEL.words(), f"paths.model_store='{store}'", "release.agreement=0"]
    for engine in ENGINES:
        settings = load_settings(CONFIG_DIR, [*own, f"model.engine={engine}"])
        ensure_archive(settings)
        if not archive_paths(settings)[0].is_file():
            raise SystemExit(f"no archive for {engine}")
    return load_settings(CONFIG_DIR, own)


def table(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    head = ["engine", "test images", "uncertain images", "float32 again", "images per CPU-second"]
    lines = [f"| {' | '.join([*head, 'against float32', 'released'])} |", "|---" * 7 + "|"]
    rows = result.get("engines", [])
    base = next((one["speed"]["median"] for one in rows if one["name"] == BASE), 1.0)
    for one in rows:
        shares = [f"{one['agreement'][name]:.2%}" for name in ("test images", "uncertain images")]
        again = f"{one['repeated']:.0%}" if one["repeated"] else "-"
        cells = [one["label"], *shares, again, _spread(one["speed"]), f"{one['speed']['median'] / base:.2f}"]
        lines.append(f"| {' | '.join([*cells, 'yes' if one['passes'] else 'no'])} |")
    lines += ["", *_batches(result.get("batches", [])), "", *_served(result.get("served", {}))]
    return "\n".join(lines)


def _batches(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| forward pass alone | 1 image | 8 images | 32 images |", "|---|---|---|---|"]
    for name in dict.fromkeys(row["graph"] for row in rows):
        cells = [f"{row['speed']['median']:.0f}" for row in rows if row["graph"] == name]
        lines.append(f"| {name}, images per CPU-second | {' | '.join(cells)} |")
    return lines


def _served(served: dict[str, Any]) -> list[str]:
    rows = served.get("models", {})
    base = rows.get("solar-cells", {}).get("speed", {}).get("median", 1.0)
    lines = [
        "| served, files to parts | images/s | CPU-ms per image | against float32 | same class as float32 |",
        "|---|---|---|---|---|",
    ]
    for name, one in rows.items():
        cpu, ratio = f"{one['cpu_ms']['median']:.2f}", f"{one['speed']['median'] / base:.2f}"
        lines.append(f"| `{name}` | {_spread(one['speed'])} | {cpu} | {ratio} | {one['same_class']:.2%} |")
    return lines


def _spread(one: dict[str, float]) -> str:
    return f"{one['median']:.0f} ({one['lowest']:.0f} to {one['highest']:.0f})"


def write_page(text: str) -> None:
    """Put the tables between the page's two marks."""
    begin, end = "<!-- begin engines -->", "<!-- end engines -->"
    before, found, rest = PAGE.read_text("utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{PAGE} lacks the marks {begin} and {end}")
    picture = "![Agreement with float32 torch against images per CPU-second](../img/engines.svg)"
    said = f"{picture}\n\n{text}\n\nMeasured on: {published.machine()}."
    PAGE.write_text(f"{before}{begin}\n{said}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
