"""The pipeline of SageMaker, held to botocore's own model of the API; and what moto takes of it."""

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from imagebatch_pipelines import sagemaker_local
from imagebatch_pipelines.parameters import read
from imagebatch_pipelines.sagemaker import definition, main
from imagebatch_pipelines.sagemaker_check import DefinitionError, check, jobs
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return definition()


def test_every_step_is_a_call_that_the_api_knows(made: dict[str, Any]) -> None:
    """With the transform and without it."""
    check(made)
    check(definition(transform=False))
    names = [step["Name"] for step in jobs(made)]
    assert names == [
        *("preprocess", "check-manifest", "model", "transform", "score"),
        *("check-predictions", "postprocess", "report"),
    ]
    assert [step["Name"] for step in jobs(definition(transform=False))] == [
        name for name in names if name not in {"model", "transform"}
    ]


@pytest.mark.parametrize(
    ("step", "path", "value"),
    [
        ("transform", ["TransformInput", "SplitTyp"], "None"),
        ("transform", ["MaxConcurrentTransforms"], "six"),
        ("score", ["AppSpecification", "ContainerEntryPoint"], ["imagebatch"]),
        ("score", ["AppSpecification", "ContainerArguments"], "score"),
        ("score", ["AppSpecification", "ContainerArguments"], ["x" * 257]),
        ("model", ["PrimaryContainer", "ModelDataUri"], "s3://b/m"),
        ("score", ["RoleArn"], {"Get": "Parameters.roll"}),
    ],
)
def test_a_typo_and_a_wrong_type_are_found(
    made: dict[str, Any], step: str, path: list[str], value: Any
) -> None:
    """moto takes each of these without a word; SageMaker would refuse the pipeline, or its run."""
    wrong = copy.deepcopy(made)
    place = next(one for one in jobs(wrong) if one["Name"] == step)["Arguments"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(DefinitionError):
        check(wrong)


def test_the_order_and_the_run_id_are_the_pipelines(made: dict[str, Any]) -> None:
    """Each step waits for the one before it; a run's id is the execution's; nothing is cached."""
    inside = made["Steps"][1]["Arguments"]["IfSteps"]
    for before, after in itertools.pairwise(inside):
        assert after["DependsOn"] == [before["Name"]]
    for step in jobs(made):
        assert "CacheConfig" not in step
        if step["Type"] == "Processing":
            (line,) = [
                one
                for one in step["Arguments"]["AppSpecification"]["ContainerArguments"]
                if isinstance(one, dict) and one["Std:Join"]["Values"][0] == "--run-id="
            ]
            assert line["Std:Join"]["Values"][1] == {"Get": "Execution.PipelineExecutionId"}


def test_each_parameter_is_used_and_each_that_is_used_is_declared(made: dict[str, Any]) -> None:
    """A parameter that nothing reads would be asked for in vain."""
    text = json.dumps(made["Steps"])
    for one in made["Parameters"]:
        assert f'"Parameters.{one["Name"]}"' in text, one["Name"]
    read(
        [
            *(
                "input=s3://b/i/",
                "runs_uri=s3://b/r",
                "role=arn:aws:iam::111122223333:role/r",
                "model_version=1.0",
            ),
            *("transform_uri=s3://b/t", "model_data=s3://b/m.tar.gz", "model_card=s3://b/c/"),
        ],
        sagemaker_local.declared_in(made),
    )


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """moto on loopback, found by boto3."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield f"http://{host}:{port}"
    server.stop()


def test_create_sends_what_was_checked(
    endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same definition as the file's; a second call with the same one is the service's to judge."""
    del endpoint
    role = "arn:aws:iam::111122223333:role/example"
    assert main(["definition", f"--out={tmp_path / 'pipeline.json'}"]) == 0
    assert main(["create", f"--role={role}"]) == 0
    assert ":pipeline/imagebatch" in capsys.readouterr().out
    kept = boto3.client("sagemaker").describe_pipeline(PipelineName="imagebatch")
    assert json.loads(kept["PipelineDefinition"]) == json.loads((tmp_path / "pipeline.json").read_text())


def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """78: no credentials, no region."""
    for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert main(["create", "--role=arn:aws:iam::111122223333:role/example"]) == 78
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_no_definition_or_no_variable_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started: 78 for the file, 2 for a variable without a value."""
    (tmp_path / "list.json").write_text("[]")
    for name in ("absent.json", "list.json"):
        asked = [f"--definition={tmp_path / name}", f"--folder={tmp_path / 'jobs'}"]
        assert sagemaker_local.main(asked) == 78
        assert f"{name} is no definition" in capsys.readouterr().err
    assert main(["definition", f"--out={tmp_path / 'made.json'}", "--environment=TOKEN"]) == 2
    assert "'TOKEN' is not NAME=VALUE" in capsys.readouterr().err
    assert not (tmp_path / "made.json").exists()
