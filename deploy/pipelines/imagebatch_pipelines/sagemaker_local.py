"""A definition of `sagemaker` run on this machine by the SDK's local mode: real containers, an S3 of yours.

    AWS_ENDPOINT_URL=http://… python -m imagebatch_pipelines.sagemaker_local --definition pipeline.json \
        --folder FOLDER --set input=s3://images/ --set runs_uri=s3://runs …

The SDK starts each job's containers with `docker compose`, downloads and uploads what the job names, and asks
the serving container about each object. Variables, the condition and the order are worked out here: the SDK's
own local pipelines cannot be created (3.27.0).
"""

import argparse
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from sagemaker.core.local import LocalSession

from imagebatch_pipelines import parameters
from imagebatch_pipelines.sagemaker_check import jobs

# The SDK reports each call to its maker unless it is told not to.
QUIET = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
NETWORK = "sagemaker-local"  # which the SDK's containers share
FAILED, CONFIGURATION = 69, 78  # exit codes, docs/reference/protocol.md: after 69 the same again goes on


class StepError(RuntimeError):
    """A step that failed; the text names it."""


class LocalRun:
    """One execution of a pipeline.

    Args:
        made: The definition.
        values: Of its parameters.
        session: The SDK's, in local mode.
        run_id: Of the execution; the same again continues it.

    Attributes:
        steps: What each step that has ended left for others to refer to.
    """

    def __init__(self, made: Mapping[str, Any], values: Mapping[str, Any], session: Any, run_id: str) -> None:
        self._made, self._session = made, session
        defaults = {one["Name"]: one["DefaultValue"] for one in made["Parameters"] if "DefaultValue" in one}
        self._known = {f"Parameters.{name}": value for name, value in (defaults | dict(values)).items()}
        self._known["Execution.PipelineExecutionId"] = run_id
        self._run_id = run_id
        self.steps: dict[str, Any] = {}

    def execute(self) -> None:
        """Do every step, one after the other; those behind a condition only if it holds.

        Raises:
            StepError: One has failed.
        """
        self._in_order(self._made["Steps"])

    def _in_order(self, steps: Sequence[Mapping[str, Any]]) -> None:
        for step in steps:
            if step["Type"] == "Condition":
                arguments = step["Arguments"]
                holds = all(self._holds(one) for one in arguments["Conditions"])
                self._in_order(arguments["IfSteps" if holds else "ElseSteps"])
                continue
            try:
                getattr(self, f"_{step['Type'].lower()}")(step["Name"], self._resolved(step["Arguments"]))
            except Exception as error:  # what the SDK raises of a container is RuntimeError, of S3 anything
                raise StepError(f"step {step['Name']}: {type(error).__name__}: {error}") from error

    def _processing(self, name: str, arguments: dict[str, Any]) -> None:
        client, job = self._session.sagemaker_client, f"{name}-{self._run_id}"
        arguments["ProcessingResources"]["ClusterConfig"]["InstanceType"] = "local"
        client.create_processing_job(job, **arguments)
        described = client.describe_processing_job(job)
        self.steps[name] = described

    def _model(self, name: str, arguments: dict[str, Any]) -> None:
        job = f"{name}-{self._run_id}"
        container = arguments["PrimaryContainer"]
        self._session.sagemaker_client.create_model(job, container)
        self._known[f"Steps.{name}.ModelName"] = job

    def _transform(self, name: str, arguments: dict[str, Any]) -> None:
        client, output = self._session.sagemaker_client, arguments.pop("TransformOutput")
        # Local mode writes to S3OutputPath/JOB/NAME.out, AWS to S3OutputPath/NAME.out.
        above, _, job = output["S3OutputPath"].rpartition("/")
        resources = arguments.pop("TransformResources") | {"InstanceType": "local"}
        client.create_transform_job(
            job,
            arguments.pop("ModelName"),
            arguments.pop("TransformInput"),
            output | {"S3OutputPath": above},
            resources,
            **arguments,
        )
        self.steps[name] = client.describe_transform_job(job)

    def _holds(self, condition: Mapping[str, Any]) -> bool:
        """Tell whether a number in a step's result file is greater than another."""
        asked = condition["LeftValue"]["Std:JsonGet"]
        step, file = asked["PropertyFile"]["Get"].removeprefix("Steps.").split(".PropertyFiles.")
        made = next(one for one in jobs(self._made) if one["Name"] == step)
        declared = next(one for one in made["PropertyFiles"] if one["PropertyFileName"] == file)
        outputs = self.steps[step]["ProcessingOutputConfig"]["Outputs"]
        uri = next(one["S3Output"]["S3Uri"] for one in outputs if one["OutputName"] == declared["OutputName"])
        place = urlsplit(f"{uri}/{declared['FilePath']}")
        content = self._session.boto_session.client("s3").get_object(
            Bucket=place.netloc, Key=place.path.lstrip("/")
        )
        return bool(json.loads(content["Body"].read())[asked["Path"]] > condition["RightValue"])

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "Std:Join" in value:
            join = value["Std:Join"]
            return join["On"].join(str(self._resolved(one)) for one in join["Values"])
        if "Get" in value:
            return self._known[value["Get"]]
        return {name: self._resolved(one) for name, one in value.items()}


def tidy(folder: Path) -> None:
    """Remove the containers that the SDK has left of jobs below a folder, and their network if it is free."""
    shown = '{{.ID}} {{.Label "com.docker.compose.project.working_dir"}}'
    listed = subprocess.run(
        ["docker", "ps", "--all", "--format", shown], capture_output=True, text=True, check=False
    )
    pairs = [line.split(" ", 1) for line in listed.stdout.splitlines() if " " in line]
    for name in [name for name, place in pairs if place and Path(place).is_relative_to(folder)]:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)
    subprocess.run(["docker", "network", "rm", NETWORK], capture_output=True, check=False)


def declared_in(made: Mapping[str, Any]) -> dict[str, parameters.Declared]:
    """Read the parameters of a definition."""
    kinds = {"String": str, "Integer": int}
    return {
        one["Name"]: parameters.Declared(kinds[one["Type"]], "DefaultValue" in one)
        for one in made["Parameters"]
    }


def main(argv: Sequence[str]) -> int:
    """Do what is asked; see the module's text.

    Returns:
        0; 2 for parameters that the pipeline does not take; 69 where a step failed; 78 for no definition.
    """
    asked = _parser().parse_args(argv)
    try:
        made = json.loads(asked.definition.read_text("utf-8"))
        declared = declared_in(made)
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"{asked.definition} is no definition: {' '.join(str(error).split())[:300]}"
        print(f"imagebatch_pipelines.sagemaker_local: {text}", file=sys.stderr)
        return CONFIGURATION
    try:
        values = parameters.read(asked.set, declared)
        session = LocalSession(boto3.Session(), sagemaker_config=QUIET)
        container = {"user": asked.user} | ({"extra_hosts": asked.host} if asked.host else {})
        asked.folder.mkdir(parents=True, exist_ok=True)
        session.config = {
            "local": {
                "container_root": str(asked.folder.resolve()),
                "container_config": container,
                "serving_port": asked.port,
            }
        }
        try:
            LocalRun(made, values, session, asked.run_id).execute()
        finally:
            tidy(asked.folder.resolve())
    except parameters.ParameterError as error:
        print(f"imagebatch_pipelines.sagemaker_local: {error}", file=sys.stderr)
        return 2
    except StepError as error:
        print(f"imagebatch_pipelines.sagemaker_local: {' '.join(str(error).split())[:600]}", file=sys.stderr)
        return FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m imagebatch_pipelines.sagemaker_local", description=__doc__
    )
    parser.add_argument("--definition", type=Path, default=Path("pipeline.json"))
    parser.add_argument("--folder", type=Path, required=True, help="for what the jobs download and leave")
    parser.add_argument(
        "--run-id", default=f"local-{uuid.uuid4().hex[:12]}", help="the same again continues it"
    )
    parser.add_argument("--port", type=int, default=8080, help="for the serving container, on all addresses")
    # The SDK's folders can be read by whoever calls it alone: containers run as that user.
    own = f"{os.getuid()}:{os.getgid()}"
    parser.add_argument("--user", default=own, help="that containers run as (default: the caller)")
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME:ADDRESS", help="that containers know"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
