"""Kubeflow Pipelines: the compiled pipeline's own components, as containers, by kfp's local runner."""

import shutil
from pathlib import Path

from tests.system.kit.verdict import require
from tests.system.orchestrators import pipelines
from tests.system.orchestrators.ground import IMAGE, Ground, Went, need_engine, way

MODULE = "imagebatch_pipelines.kubeflow"


@way
def kubeflow(ground: Ground) -> Went:
    """Kubeflow Pipelines: `kfp.local` with containers, a loop over the shards."""
    need_engine()
    checks = pipelines.checked(ground, "kubeflow")
    root = ground.folder_of("kubeflow")
    pipelines.copied(ground, root)
    (root / "empty").mkdir()
    shutil.copy(ground.server.key_file, root)
    _run(ground, root, "kubeflow", root / "images", root / "runs")
    # The runner's own word is worth nothing (kubeflow/pipelines#13332): the run's files are.
    (run,) = (found for found in (root / "runs").iterdir() if (found / "run.json").exists())
    csv = (run / "output" / "predictions.csv").read_bytes()
    shards = len(list((run / "scores").glob("*/_DONE.json")))
    wanted = -(-len(ground.ids) // ground.shard_size)
    require(shards == wanted, f"{shards} shards were scored, not {wanted}")
    require((run / "output" / "report.html").exists(), "there is no report")
    proof = ground.imagebatch("kubeflow-verify", "verify", f"--run-id={run.name}", f"--runs-uri={run.parent}")
    require(proof.wait() == 0, f"the run is not proven: {proof.err[-300:]}")
    _run(ground, root, "kubeflow-empty", root / "empty", root / "no-runs")
    require(not list((root / "no-runs").glob("*/output")), "an empty input left an output")
    return Went(csv, f"{shards} shards in a loop, an empty input left out; {checks}")


def _run(ground: Ground, root: Path, log: str, images: Path, runs: Path) -> None:
    values = {
        "input": images,
        "runs_uri": runs,
        "api_url": ground.server.inference,
        "key_file": root / ground.server.key_file.name,
        "shard_size": ground.shard_size,
    }
    told = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    pipelines.done(ground, log, "-m", MODULE, "local", f"--root={root}", f"--image={IMAGE}", *told)
