"""The stages of a run as a table, and the parameters of a pipeline of them. Standard library only.

Renderers take it as it is: what a stage is called, which command it starts, what it is told, what it gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

IMAGE = "imagebatch:latest"
COMMAND = "imagebatch"  # the image has no entry point: the command begins with the program


@dataclass(frozen=True)
class Parameter:
    """What whoever starts a pipeline says.

    Attributes:
        name: As a flag without its dashes, words joined by `_`.
        kind: `str` or `int`.
        text: One sentence.
        default: None: it must be given.
    """

    name: str
    kind: type
    text: str
    default: str | int | None = None

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class Stage:
    """One container of a pipeline.

    Attributes:
        name: In the pipeline, where it is the only one of its name.
        command: Of `imagebatch`.
        parameters: Names of the pipeline's parameters that it is told, beside those of each stage.
        fixed: Flags that are always the same.
        switches: Flags without a value.
        per_shard: Whether there is one for each shard, told by `--shard`.
        results: Fields of its last line that other stages or people want, with their types.
        asks: Whether it asks the model API.
        retries: Further attempts. Each continues where the one before it stopped; a code that no retry
            helps (65, 78) comes again within seconds.
        cpus: Cores that it can keep busy.
        memory: Most memory, as Kubernetes writes it.
    """

    name: str
    command: str
    parameters: tuple[str, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    switches: tuple[str, ...] = ()
    per_shard: bool = False
    results: Mapping[str, type] = field(default_factory=dict)
    asks: bool = False
    retries: int = 2
    cpus: str = "1"
    memory: str = "2G"

    @property
    def told(self) -> tuple[str, ...]:
        """Names of all parameters that it is told."""
        return (*EVERYWHERE, *(API if self.asks else ()), *self.parameters)


PARAMETERS = {
    one.name: one
    for one in (
        Parameter("input", str, "Folder, archive or URI of the images."),
        Parameter("runs_uri", str, "Where runs are kept: a URI, or a folder that every stage sees."),
        Parameter("api_url", str, "Inference API of the model server, as the stages reach it."),
        Parameter("key_file", str, "TorchServe's key file in the container; empty: no keys.", ""),
        Parameter("backend", str, "Kind of model API.", "torchserve"),
        Parameter("model", str, "Name of the model.", "solar-cells"),
        Parameter("model_version", str, "Its version; empty: the server's default.", ""),
        Parameter("pipeline", str, "Name of the batch, which metrics carry.", "default"),
        Parameter("shard_size", int, "Images per shard.", 512),
        Parameter("top_k", int, "Labels per image.", 4),
        Parameter("max_failures", str, "Failures tolerated: a count or a share.", "5%"),
    )
}
EVERYWHERE = ("runs_uri", "pipeline")
API = ("api_url", "key_file")

PREPROCESS = Stage(
    "preprocess",
    "preprocess",
    ("input", "backend", "model", "model_version", "shard_size", "top_k", "max_failures"),
    # An empty input ends with 0 and no shard: these orchestrators call every other code a failure.
    fixed={"--nothing-to-do-code": "0"},
    results={"shards": int, "shard_list": list},
    switches=("--allow-empty",),
    asks=True,
)
CHECK_MANIFEST = Stage("check-manifest", "check", fixed={"--suite": "manifest"}, retries=1)
SCORE = Stage("score", "score", per_shard=True, asks=True, retries=4)
CHECK_PREDICTIONS = Stage("check-predictions", "check", fixed={"--suite": "predictions"}, retries=1)
POSTPROCESS = Stage(
    "postprocess", "postprocess", results={"account": str, "predictions": str, "certificate": str}
)
REPORT = Stage("report", "report", retries=1)

STAGES = (PREPROCESS, CHECK_MANIFEST, SCORE, CHECK_PREDICTIONS, POSTPROCESS, REPORT)
"""In their order. All but the first are left out where there is no shard."""


def flags(
    stage: Stage, values: Mapping[str, object], run_id: object, shard: object = None
) -> list[tuple[str, object]]:
    """List the flags of a stage with their values, texts or an orchestrator's placeholders for them.

    Args:
        stage: Which.
        values: Of the parameters.
        run_id: The orchestrator's own id of the pipeline's run: the same for each stage and each attempt.
        shard: Of a stage for each shard: its number.

    Raises:
        KeyError: A parameter that the stage is told has no value.
    """
    told = [(PARAMETERS[name].flag, values[name]) for name in stage.told]
    each = [("--shard", shard)] if stage.per_shard else []
    return [("--run-id", run_id), *told, *stage.fixed.items(), *each]
