"""The compiled pipeline on Vertex AI (now also called Gemini Enterprise Agent Platform): check it, submit it.

    python -m imagebatch_pipelines.vertex submit --dry-run --template pipeline.yaml --project P --location L \
        --pipeline-root gs://bucket/kfp --set input=gs://bucket/images --set runs_uri=gs://bucket/runs …

With `--dry-run` nothing leaves this machine: the job is built with the SDK and read back strictly.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from google.cloud.aiplatform_v1 import PipelineJob
from google.protobuf import json_format

from imagebatch_pipelines import parameters

CONFIGURATION = 78  # exit code, docs/reference/protocol.md


def job(asked: argparse.Namespace, *, offline: bool) -> Any:
    """Build the job: parameters are checked first, then the SDK's own checks follow.

    Args:
        asked: The parsed command line.
        offline: Without anybody's credentials.

    Raises:
        parameters.ParameterError: A value is missing, unknown or of another type.
        OSError, ValueError: There is no such template, or the SDK refuses it.
    """
    template = yaml.safe_load(Path(asked.template).read_text("utf-8"))
    declared = parameters.declared_in(template)
    values = parameters.read(asked.set, declared)
    return aiplatform.PipelineJob(
        display_name=asked.name,
        template_path=str(asked.template),
        job_id=asked.job_id or None,
        pipeline_root=asked.pipeline_root,
        parameter_values=values,
        enable_caching=False,  # a score out of a cache would be one that nobody asked the model for
        project=asked.project,
        location=asked.location,
        credentials=AnonymousCredentials() if offline else None,
    )


def checked(built: Any) -> dict[str, Any]:
    """Return the request of a job, read back strictly as the API's own message.

    Raises:
        google.protobuf.json_format.ParseError: It has a field that the API does not know.
    """
    request: dict[str, Any] = built.to_dict()
    json_format.ParseDict(request, PipelineJob.pb()(), ignore_unknown_fields=False)
    return request


def main(argv: Sequence[str]) -> int:
    """Do what is asked; see the module's text.

    Returns:
        0; 2 for values that the pipeline does not take; 78 for a job that cannot be built.
    """
    asked = _parser().parse_args(argv)
    try:
        built = job(asked, offline=asked.dry_run)
        request = checked(built)
    except parameters.ParameterError as error:
        print(f"imagebatch_pipelines.vertex: {error}", file=sys.stderr)
        return 2
    except (OSError, ValueError, yaml.YAMLError, json_format.ParseError) as error:
        text = " ".join(str(error).split())[:400]
        print(f"imagebatch_pipelines.vertex: {asked.template} cannot be submitted: {text}", file=sys.stderr)
        return CONFIGURATION
    if asked.dry_run:
        print(json.dumps(request, indent=1))
        return 0
    built.submit(service_account=asked.service_account or None, network=asked.network or None)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m imagebatch_pipelines.vertex", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    submit = actions.add_parser("submit", help="start the pipeline, or only check it")
    submit.add_argument("--dry-run", action="store_true", help="print the request; nothing is sent")
    submit.add_argument("--template", type=Path, default=Path("pipeline.yaml"), help="compiled with --plain")
    submit.add_argument("--name", default="imagebatch", help="shown to people (default: imagebatch)")
    submit.add_argument("--job-id", default="", help="default: made of the pipeline's name and the time")
    submit.add_argument("--project", required=True)
    submit.add_argument("--location", required=True, help="as europe-west4")
    submit.add_argument(
        "--pipeline-root", required=True, help="gs:// folder for what the pipeline itself writes"
    )
    submit.add_argument("--service-account", default="", help="that the stages run as")
    submit.add_argument(
        "--network", default="", help="full name of a VPC in which the model server is reached"
    )
    submit.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
