"""The request to Vertex AI, made without its cloud: our checks first, then the SDK's and the message's."""

import json
from pathlib import Path

import pytest
import yaml
from imagebatch_pipelines import kubeflow, vertex

WHERE = ["--project=example", "--location=europe-west4", "--pipeline-root=gs://example/kfp"]
VALUES = {"input": "gs://example/images", "runs_uri": "gs://example/runs", "api_url": "http://10.0.0.2:8080"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vertex") / "pipeline.yaml"
    assert kubeflow.main(["compile", "--plain", f"--out={path}", "--image=example.com/imagebatch:1"]) == 0
    return path


def submitted(template: Path, *more: str, without: str = "") -> int:
    told = [f"--set={name}={value}" for name, value in VALUES.items() if name != without]
    return vertex.main(["submit", "--dry-run", f"--template={template}", *WHERE, *told, *more])


def test_the_request_is_built_and_read_back(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The compiled pipeline as it is, values of the right types, no cache."""
    capsys.readouterr()
    assert submitted(template, "--set=shard_size=64") == 0
    request = json.loads(capsys.readouterr().out)
    assert request["runtimeConfig"]["gcsOutputDirectory"] == "gs://example/kfp"
    given = request["runtimeConfig"]["parameterValues"]
    assert given == VALUES | {"shard_size": 64}
    assert len(request["pipelineSpec"]["deploymentSpec"]["executors"]) == 6


@pytest.mark.parametrize(
    ("more", "without", "said"),
    [
        ([], "api_url", "api_url: no value, and the pipeline has no default"),
        (["--set=shard_size=many"], "", "shard_size is 'many': give a whole number"),
        (["--set=modell=x"], "", "no parameter modell; did you mean model?"),
    ],
)
def test_what_the_sdk_does_not_notice_is_refused_here(
    template: Path, capsys: pytest.CaptureFixture[str], more: list[str], without: str, said: str
) -> None:
    """2 and one line: the SDK would build such a job, and the cloud would fail it later."""
    assert submitted(template, *more, without=without) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_what_cannot_be_submitted_is_one_line(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """78: no such file, no pipeline, a job id that Vertex AI does not take."""
    assert submitted(tmp_path / "none.yaml") == 78
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"kind": "Pod"}))
    assert submitted(other) == 2
    assert submitted(template, "--job-id=Not_Allowed") == 78
    assert capsys.readouterr().err.count("\n") == 3
