"""The stages as a pipeline of SageMaker: its definition, checked against botocore's own model of the API.

    python -m imagebatch_pipelines.sagemaker definition --out pipeline.json
    python -m imagebatch_pipelines.sagemaker create --name imagebatch --role arn:aws:iam::…

Processing jobs run the stages; between them a batch transform asks our serving image about each image of the
input, and `score` judges what it left, image by image (`--backend transform`). With `--without-transform`
the stages ask a model server of yours instead. The definition is data: nothing of SageMaker's SDK is needed.
"""

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from imagebatch_pipelines.parameters import ParameterError, variables
from imagebatch_pipelines.sagemaker_check import DefinitionError, check, jobs
from imagebatch_pipelines.stages import (
    COMMAND,
    IMAGE,
    PARAMETERS,
    PREPROCESS,
    SCORE,
    STAGES,
    Parameter,
    Stage,
    flags,
)

USAGE, CONFIGURATION = 2, 78  # exit codes, docs/reference/protocol.md
SERVING_IMAGE = "imagebatch-serving:latest"
CARD = "/opt/ml/processing/model"
RESULT = "/opt/ml/processing/result"
RUN_ID = {"Get": "Execution.PipelineExecutionId"}
OWN = {
    one.name: one
    for one in (
        Parameter("role", str, "ARN of the role that the jobs run as."),
        Parameter("instance_type", str, "Of the processing jobs.", "ml.c5.xlarge"),
        Parameter("transform_instance_type", str, "Of the batch transform.", "ml.c5.2xlarge"),
        Parameter("transform_instances", int, "How many.", 1),
        Parameter("transform_uri", str, "s3:// folder in which each run's transform gets its own."),
        Parameter("model_data", str, "s3:// URI of model.tar.gz, which holds the archive and nothing else."),
        Parameter("model_card", str, "s3:// folder of the file beside the archive, MODEL.json."),
    )
}
TRANSFORM_ONLY = {
    "transform_instance_type",
    "transform_instances",
    "transform_uri",
    "model_data",
    "model_card",
}


def parameters(*, transform: bool) -> dict[str, Parameter]:
    """List the parameters of the pipeline."""
    own = {name: one for name, one in OWN.items() if transform or name not in TRANSFORM_ONLY}
    asked = {"api_url", "key_file", "backend"} if transform else {"key_file"}
    # SageMaker takes no empty text for a value, so the version must be said.
    own["model_version"] = Parameter("model_version", str, "Version of the model, as 1.0.")
    asked |= {"model_version"}
    return own | {name: one for name, one in PARAMETERS.items() if name not in asked}


def definition(
    image: str = IMAGE,
    serving: str = SERVING_IMAGE,
    *,
    transform: bool = True,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the pipeline.

    Args:
        image: Of the stages.
        serving: Of the batch transform.
        transform: Whether a batch transform asks the model; else the stages ask `api_url`.
        environment: Variables of each stage.

    Returns:
        What CreatePipeline takes as PipelineDefinition, as JSON.
    """
    steps = {
        stage.name: _processing(stage, image, environment or {}, transform=transform) for stage in STAGES
    }
    order = [stage.name for stage in STAGES]
    inside: list[dict[str, Any]] = [steps[name] for name in order[1:]]
    if transform:
        place = order.index(SCORE.name) - 1
        inside[place:place] = [_model(serving), _transform()]
    for before, after in itertools.pairwise(inside):
        after["DependsOn"] = [before["Name"]]
    return {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": [_declared(one) for one in parameters(transform=transform).values()],
        "Steps": [steps[PREPROCESS.name], _if_any(inside)],
    }


def _declared(one: Parameter) -> dict[str, Any]:
    kind = {"Name": one.name, "Type": "Integer" if one.kind is int else "String"}
    return kind | ({} if one.default is None else {"DefaultValue": one.default})


def _get(name: str) -> dict[str, str]:
    return {"Get": f"Parameters.{name}"}


def _joined(*values: Any, on: str = "") -> dict[str, Any]:
    return {"Std:Join": {"On": on, "Values": list(values)}}


def _processing(
    stage: Stage, image: str, environment: Mapping[str, str], *, transform: bool
) -> dict[str, Any]:
    known = parameters(transform=transform)
    values = {name: _get(name) for name in known}
    told = [
        pair for pair in flags(stage, values | _fixed(values, transform=transform), RUN_ID) if pair[1] != ""
    ]
    if transform and stage.asks:
        told += [("--model-card", f"{CARD}/{{model}}.json")]
    if transform and stage is SCORE:
        told += [("--transform-output", _joined(_get("transform_uri"), RUN_ID, on="/"))]
    told = [pair for pair in told if pair[0] != "--shard"]  # of a transform all shards are read at once
    if stage is PREPROCESS:
        told += [("--result-files", f"line={RESULT}/line.json")]
    given = [
        _joined(f"{flag}=", value) if isinstance(value, dict) else f"{flag}={value}" for flag, value in told
    ]
    step: dict[str, Any] = {"Name": stage.name, "Type": "Processing"}
    step["Arguments"] = {
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": _get("instance_type"),
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            }
        },
        "AppSpecification": {
            "ImageUri": image,
            "ContainerEntrypoint": [COMMAND],
            "ContainerArguments": [stage.command, *stage.switches, *given],
        },
        "RoleArn": _get("role"),
        "StoppingCondition": {"MaxRuntimeInSeconds": 6 * 3600},
        "Environment": dict(environment),
        "ProcessingInputs": [_input()] if transform and stage.asks else [],
    }
    if stage is PREPROCESS:
        step["Arguments"]["ProcessingOutputConfig"] = {"Outputs": [_output()]}
        step["PropertyFiles"] = [
            {"PropertyFileName": "result", "OutputName": "result", "FilePath": "line.json"}
        ]
    return step | {"RetryPolicies": _retries(stage.retries)}


def _fixed(values: Mapping[str, Any], *, transform: bool) -> dict[str, Any]:
    """Give what a pipeline of this kind has no parameter for; empty: the flag is left out."""
    fixed: dict[str, Any] = {"key_file": ""}
    if transform:
        fixed |= {"api_url": "", "backend": "transform"}
    return {name: value for name, value in fixed.items() if name not in values}


def _retries(times: int) -> list[dict[str, Any]]:
    """Try again what the service has failed; an exit code of ours is no reason that SageMaker retries for."""
    reasons = (
        ["Step.SERVICE_FAULT", "Step.THROTTLING"],
        ["SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR", "SageMaker.RESOURCE_LIMIT"],
    )
    return [
        {"ExceptionType": kinds, "IntervalSeconds": 30, "BackoffRate": 2.0, "MaxAttempts": times}
        for kinds in reasons
    ]


def _input() -> dict[str, Any]:
    place: dict[str, Any] = {
        "S3Uri": _get("model_card"),
        "LocalPath": CARD,
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
    }
    place |= {"S3DataDistributionType": "FullyReplicated", "S3CompressionType": "None"}
    return {"InputName": "model-card", "AppManaged": False, "S3Input": place}


def _output() -> dict[str, Any]:
    place: dict[str, Any] = {"S3Uri": _joined(_get("runs_uri"), "_results", RUN_ID, on="/")}
    place |= {"LocalPath": RESULT, "S3UploadMode": "EndOfJob"}
    return {"OutputName": "result", "AppManaged": False, "S3Output": place}


def _model(serving: str) -> dict[str, Any]:
    return {
        "Name": "model",
        "Type": "Model",
        "Arguments": {
            "ExecutionRoleArn": _get("role"),
            "EnableNetworkIsolation": True,
            "PrimaryContainer": {"Image": serving, "ModelDataUrl": _get("model_data"), "Environment": {}},
        },
    }


def _transform() -> dict[str, Any]:
    """Ask about each object below `input`, one a request: the file that is left has its name and `.out`."""
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": _get("input")}}
    return {
        "Name": "transform",
        "Type": "Transform",
        "Arguments": {
            "ModelName": {"Get": "Steps.model.ModelName"},
            "BatchStrategy": "SingleRecord",
            "MaxConcurrentTransforms": 6,
            "MaxPayloadInMB": 16,
            "ModelClientConfig": {"InvocationsTimeoutInSeconds": 300, "InvocationsMaxRetries": 3},
            "TransformInput": {
                "DataSource": source,
                "ContentType": "application/octet-stream",
                "CompressionType": "None",
                "SplitType": "None",
            },
            "TransformOutput": {
                "S3OutputPath": _joined(_get("transform_uri"), RUN_ID, on="/"),
                "Accept": "application/json",
                "AssembleWith": "None",
            },
            "TransformResources": {
                "InstanceType": _get("transform_instance_type"),
                "InstanceCount": _get("transform_instances"),
            },
        },
        "RetryPolicies": _retries(2),
    }


def _if_any(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Go on only where preprocess has found an image: an empty input ends well, with nothing done."""
    found = {"PropertyFile": {"Get": f"Steps.{PREPROCESS.name}.PropertyFiles.result"}, "Path": "shards"}
    condition = {"Type": "GreaterThan", "LeftValue": {"Std:JsonGet": found}, "RightValue": 0}
    arguments = {"Conditions": [condition], "IfSteps": list(steps), "ElseSteps": []}
    return {"Name": "any-image", "Type": "Condition", "Arguments": arguments}


def main(argv: Sequence[str]) -> int:
    """Do what is asked; see the module's text.

    Returns:
        0; 2 for a variable without a value; 78 for a definition that SageMaker would refuse, or does refuse.
    """
    asked = _parser().parse_args(argv)
    try:
        environment = variables(asked.environment)
        made = definition(
            asked.image, asked.serving_image, transform=not asked.without_transform, environment=environment
        )
        check(made)
        if asked.action == "definition":
            asked.out.write_text(json.dumps(made, indent=1) + "\n", "utf-8")
            print(f"{asked.out}: {len(list(jobs(made)))} steps, {len(made['Parameters'])} parameters")
        else:
            body = json.dumps(made)
            answer = boto3.client("sagemaker").create_pipeline(
                PipelineName=asked.name,
                PipelineDefinition=body,
                RoleArn=asked.role,
                ClientRequestToken=hashlib.sha256(body.encode()).hexdigest(),
            )
            print(answer["PipelineArn"])
    except ParameterError as error:
        print(f"imagebatch_pipelines.sagemaker: --environment: {error}", file=sys.stderr)
        return USAGE
    except (DefinitionError, OSError, BotoCoreError, ClientError, ParamValidationError) as error:
        print(f"imagebatch_pipelines.sagemaker: {' '.join(str(error).split())[:400]}", file=sys.stderr)
        return CONFIGURATION
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m imagebatch_pipelines.sagemaker", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    written = actions.add_parser("definition", help="write the pipeline's definition, checked")
    written.add_argument("--out", type=Path, default=Path("pipeline.json"), help="default: pipeline.json")
    created = actions.add_parser("create", help="create the pipeline at AWS, with the credentials of boto3")
    created.add_argument("--name", default="imagebatch", help="default: imagebatch")
    created.add_argument("--role", required=True, help="ARN of the role that the pipeline runs as")
    for each in (written, created):
        each.add_argument("--image", default=IMAGE, help="of the stages, as ECR names it")
        each.add_argument("--serving-image", default=SERVING_IMAGE, help="of the batch transform")
        each.add_argument("--without-transform", action="store_true", help="ask a model server at api_url")
        each.add_argument(
            "--environment", action="append", default=[], metavar="NAME=VALUE", help="of each stage"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
