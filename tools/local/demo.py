"""`make demo`: from nothing to a table of predictions, by the same parts that a real batch uses."""

import argparse
import json
import sys
import time
from itertools import islice
from pathlib import Path

from tools.airflow_api import AirflowError
from tools.local import stack
from tools.local.follow import follow
from tools.local.services import ADMIN, airflow_api, model_api, password, training_folders
from tools.paths import PORTS, ROOT, VAR, fail, program, run, say, step, url

DAG = "batch_image_inference"
TRAINING = ("weights", "data", "train", "archive")
ROWS = 5
UNAVAILABLE = 69  # exit code, docs/reference/protocol.md


def main() -> int:
    """Train what is not trained, start what does not run, score everything, show the result."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shard-size", type=int, default=512, help="images per mapped task (default 512)")
    shard_size = options.parse_args().shard_size
    begun = time.monotonic()
    for verb in TRAINING:
        with step(f"training: {verb}"):
            train(verb)
    with step("stack"):
        code = stack.main(["up"])
    if code:
        return code
    with step("batch"):
        finished = score(shard_size)
    with step("result"):
        show(Path(finished["predictions"].removeprefix("file://")).parent)
    say("")
    say(f"done in {time.monotonic() - begun:.0f} s; `make demo` makes another run, `make down` stops all")
    return 0


def train(verb: str, *arguments: str) -> None:
    """Run a verb of `imagebatch-train` on this stack's folders.

    Args:
        verb: `weights`, `data`, `train`, `archive` or `evaluate`.
        *arguments: more of its arguments.
    """
    run(
        [program("training", "imagebatch-train"), verb, *arguments, *training_folders()],
        environment={"MLFLOW_TRACKING_URI": f"sqlite:///{VAR / 'mlflow' / 'mlflow.db'}"},
    )


def score(shard_size: int) -> dict[str, str]:
    """Trigger the DAG on the demo's photographs and follow it.

    Args:
        shard_size: images per mapped task.

    Returns:
        The result of its last stage.
    """
    images = VAR / "data" / "solar-cells" / "images"
    try:
        api = airflow_api()
        api.wait_for_dag(DAG)
        started = api.trigger(DAG, {"input": str(images), "shard_size": shard_size})
        say(f"run {started.run_id}")
        follow(api, started)
        return api.result(started, "postprocess")
    except AirflowError as error:
        fail(str(error), 1)
    except (OSError, ValueError) as error:
        fail(f"Airflow does not answer ({error}): see `make up` and var/logs", UNAVAILABLE)


def show(output: Path) -> None:
    """Print a finished run: first rows, certificate, verification, accuracy, addresses.

    Args:
        output: its folder `output`.
    """
    predictions = output / "predictions.csv"
    say("")
    say(f"{predictions}:")
    with predictions.open(encoding="utf-8") as lines:
        for line in islice(lines, ROWS + 1):
            say(f"  {line.rstrip()}")
    certificate = json.loads((output / "certificate.json").read_text())
    say("")
    say("certificate: " + ", ".join(f"{name} {value}" for name, value in counts(certificate).items()))
    folder = output.parent
    run(
        [
            program("pipeline_image", "imagebatch"),
            "verify",
            f"--runs-uri={folder.parent}",
            f"--run-id={folder.name}",
        ],
        environment=model_api(),
    )
    say("")
    train("evaluate", "--predictions", str(predictions))
    say("")
    say(f"Airflow     {url('airflow', f'/dags/{DAG}')}  login {ADMIN} / {password()}")
    say(f"MLflow      {url('mlflow')}")
    say(f"TorchServe  {url('inference')}, metrics on {PORTS['metrics']}")
    page = folder / "output" / "report.html"
    quality = folder / "quality" / "docs" / "index.html"
    say(f"Run         {folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder}")
    if page.exists():
        say(f"Report      {page}")
    if quality.exists():
        say(f"Checks      {quality}")


def counts(certificate: dict[str, object]) -> dict[str, object]:
    """Pick the counts that must balance out of a certificate: listed = predicted + failed + rejected."""
    inner = certificate.get("counts")
    found = inner if isinstance(inner, dict) else certificate
    return {name: found[name] for name in ("listed", "predicted", "failed", "rejected")}


if __name__ == "__main__":
    sys.exit(main())
