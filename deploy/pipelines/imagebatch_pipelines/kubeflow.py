"""The stages as a pipeline of Kubeflow Pipelines: compile it, or run it here in containers without a cluster.

python -m imagebatch_pipelines.kubeflow compile --out pipeline.yaml
python -m imagebatch_pipelines.kubeflow local --root FOLDER --set input=FOLDER/images …
"""

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes, local

from imagebatch_pipelines import parameters
from imagebatch_pipelines.stages import (
    API,
    CHECK_MANIFEST,
    CHECK_PREDICTIONS,
    COMMAND,
    EVERYWHERE,
    IMAGE,
    PARAMETERS,
    POSTPROCESS,
    PREPROCESS,
    REPORT,
    SCORE,
    Stage,
    flags,
)

NAME = "imagebatch"
USER = 10001  # of the image
# What a container of ours needs of an engine: nothing but a folder for temporary files.
CONFINED = {
    "read_only": True,
    "tmpfs": {"/tmp": "mode=1777"},  # noqa: S108 - the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "2g",
    "pids_limit": 512,
}


@dataclass(frozen=True)
class Cluster:
    """What only Kubernetes knows; empty where the cluster's defaults do.

    Attributes:
        secret: Secret whose keys become variables of each stage, such as AWS_ACCESS_KEY_ID.
        secret_keys: Which of its keys.
        claim: PersistentVolumeClaim with images and runs, for runs on no object store.
        mount: Where it is mounted.
        seconds: Longest time of one attempt of a stage.
    """

    secret: str = ""
    secret_keys: tuple[str, ...] = ()
    claim: str = ""
    mount: str = "/data"
    seconds: int = 6 * 3600


def pipeline(image: str = IMAGE, *, at_once: int = 4, cluster: Cluster | None = None) -> Any:
    """Make the pipeline.

    Args:
        image: Of the stages.
        at_once: Shards that are scored at the same time.
        cluster: What is said to Kubernetes; None: nothing, as Vertex AI wants it.
    """

    def start(stage: Stage, values: Mapping[str, object], shard: object = None) -> Any:
        task = _component(stage, image)(
            **{name: values[name] for name in stage.told}, **({"shard": shard} if stage.per_shard else {})
        )
        return _configured(task, stage, cluster)

    def of_shards(*given: Any) -> None:
        values = dict(zip(handed, given, strict=True))
        with dsl.If(values["shards"] > 0, name="any-image"):
            checked = start(CHECK_MANIFEST, values)
            with dsl.ParallelFor(values["shard_list"], parallelism=at_once, name="shards") as shard:
                scored = start(SCORE, values, shard).after(checked)
            judged = start(CHECK_PREDICTIONS, values).after(scored)
            written = start(POSTPROCESS, values).after(judged)
            start(REPORT, values).after(written)

    def batch(*given: object) -> None:
        values = dict(zip(PARAMETERS, given, strict=True))
        planned = start(PREPROCESS, values)
        rest = {name: values[name] if name in values else planned.outputs[name] for name in handed}
        inner(**rest).set_display_name("shards")

    kinds = {name: PARAMETERS[name].kind for name in (*EVERYWHERE, *API)} | dict(PREPROCESS.results)
    handed = list(kinds)
    _sign(of_shards, "shards", [_signed(name, kind) for name, kind in kinds.items()])
    # A pipeline of its own: kfp.local 2.17.0 finds a condition's value among a pipeline's parameters, but not
    # among what a task gave under a name, and then calls a run that did nothing a success.
    inner = dsl.pipeline(name=f"{NAME}-shards", description="All that is done with shards")(of_shards)
    _sign(batch, NAME, [_signed(one.name, one.kind, one.default) for one in PARAMETERS.values()])
    return dsl.pipeline(name=NAME, description="Scores images in bulk, and proves that none was lost")(batch)


def _component(stage: Stage, image: str) -> Callable[..., Any]:
    """Make the component of a stage: its parameters and results are those of the table."""
    told_to = [_signed(name, PARAMETERS[name].kind) for name in stage.told]
    told_to += [_signed("shard", str)] if stage.per_shard else []
    told_to += [_signed(name, dsl.OutputPath(kind)) for name, kind in stage.results.items()]

    def container(*placed: Any) -> dsl.ContainerSpec:
        given = dict(zip((one.name for one in told_to), placed, strict=True))
        told = flags(stage, given, dsl.PIPELINE_JOB_ID_PLACEHOLDER, given.get("shard"))
        if stage.results:
            told += [("--result-files", ",".join(f"{name}={given[name]}" for name in stage.results))]
        # Flags and values stand apart: kfp.local makes 64.0 of the number 64 within a text.
        line = [stage.command, *stage.switches, *(part for pair in told for part in pair)]
        return dsl.ContainerSpec(image=image, command=[COMMAND], args=line)

    _sign(container, stage.name, told_to)
    made: Callable[..., Any] = dsl.container_component(container)
    return made


def _signed(name: str, kind: Any, default: object = None) -> inspect.Parameter:
    empty = inspect.Parameter.empty if default is None else default
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=empty)


def _sign(function: Any, name: str, told: Sequence[inspect.Parameter]) -> None:
    """Give a function the name and signature that kfp reads: it was written for any stage of the table."""
    function.__name__ = name.replace("-", "_")
    function.__signature__ = inspect.Signature(told)


def _configured(task: Any, stage: Stage, cluster: Cluster | None) -> Any:
    task.set_display_name(stage.name)
    # A score out of a cache would be one that nobody asked the model for.
    task.set_caching_options(enable_caching=False)
    task.set_retry(
        num_retries=stage.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s"
    )
    task.set_cpu_request(stage.cpus).set_memory_request("1G").set_memory_limit(stage.memory)
    if cluster is None:
        return task
    kubernetes.set_timeout(task, seconds=cluster.seconds)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    if cluster.secret:
        names = {name: name for name in cluster.secret_keys}
        kubernetes.use_secret_as_env(task, secret_name=cluster.secret, secret_key_to_env=names)
    if cluster.claim:
        kubernetes.mount_pvc(task, pvc_name=cluster.claim, mount_path=cluster.mount)
    return task


def compile_to(path: Path, made: Any) -> None:
    """Write the compiled pipeline, which Kubeflow and Vertex AI take."""
    compiler.Compiler().compile(made, str(path))


def run_here(root: Path, image: str, values: Mapping[str, str | int], network: str) -> None:
    """Run the pipeline on this machine's container engine.

    Only what lies below `root` is seen by the stages. Whether they have succeeded is to be told by their
    files, never by the state that is returned: the runner takes a container that failed and was gone before
    it looked for one that succeeded (kubeflow/pipelines#13332).

    Args:
        root: Folder for everything; inputs and runs lie below it.
        image: Must be on the engine under this very name and tag.
        values: Of the pipeline's parameters.
        network: `host`, or a network of the engine on which the model server is known.
    """
    user = f"{os.getuid()}:{os.getgid()}"  # what it leaves is then the caller's
    runner = local.DockerRunner(network_mode=network, user=user, **CONFINED)
    local.init(runner=runner, pipeline_root=str(root), raise_on_error=True)
    pipeline(image)(**values)


def main(argv: Sequence[str]) -> int:
    """Do what is asked; see the module's text.

    Returns:
        0; 2 for parameters that the pipeline does not take; 1 where a stage failed in a local run.
    """
    parser = _parser()
    asked = parser.parse_args(argv)
    if asked.action == "compile":
        if bool(asked.secret) != bool(asked.secret_keys):
            parser.error("--secret and --secret-keys belong together: whose keys become variables, and which")
        if asked.at_once < 1:
            parser.error("--at-once must be at least 1")
        cluster = None
        if not asked.plain:
            keys = tuple(filter(None, asked.secret_keys.split(",")))
            cluster = Cluster(asked.secret, keys, asked.claim, asked.mount, asked.timeout)
        compile_to(asked.out, pipeline(asked.image, at_once=asked.at_once, cluster=cluster))
        print(f"{asked.out}: {len(PARAMETERS)} parameters")
        return 0
    try:
        values = parameters.read(asked.set)
    except parameters.ParameterError as error:
        print(f"imagebatch_pipelines.kubeflow: {error}", file=sys.stderr)
        return 2
    try:
        run_here(asked.root.resolve(), asked.image, values, asked.network)
    except RuntimeError as error:  # a stage that failed, after all its attempts; its words are printed above
        print(f"imagebatch_pipelines.kubeflow: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m imagebatch_pipelines.kubeflow", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    compiling = actions.add_parser(
        "compile", help="write the pipeline for Kubeflow, or for Vertex AI (--plain)"
    )
    compiling.add_argument("--out", type=Path, default=Path("pipeline.yaml"), help="default: pipeline.yaml")
    compiling.add_argument("--plain", action="store_true", help="say nothing to Kubernetes, for Vertex AI")
    compiling.add_argument("--at-once", type=int, default=4, help="shards scored at once (default: 4)")
    compiling.add_argument("--secret", default="", help="secret whose keys become variables of each stage")
    compiling.add_argument("--secret-keys", default="", help="which, with commas between them")
    compiling.add_argument("--claim", default="", help="PersistentVolumeClaim with images and runs")
    compiling.add_argument("--mount", default="/data", help="where it is mounted (default: /data)")
    compiling.add_argument(
        "--timeout", type=int, default=6 * 3600, help="seconds of an attempt (default: 6 h)"
    )
    here = actions.add_parser("local", help="run it on this machine's container engine")
    here.add_argument("--root", type=Path, required=True, help="folder that the stages see")
    here.add_argument("--network", default="host", help="of the engine (default: host)")
    here.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    for each in (compiling, here):
        each.add_argument("--image", default=IMAGE, help=f"of the stages (default: {IMAGE})")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
