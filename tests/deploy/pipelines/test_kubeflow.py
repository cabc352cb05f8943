"""The compiled pipeline of Kubeflow, read back strictly, and what it says to Kubernetes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from imagebatch_pipelines.kubeflow import main
from imagebatch_pipelines.stages import PARAMETERS, STAGES
from kfp.kubernetes import kubernetes_executor_config_pb2 as config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2


def compiled(path: Path, *flags: str) -> list[dict[str, Any]]:
    """Compile, and give the documents of the file: the pipeline, and what is for Kubernetes."""
    assert main(["compile", f"--out={path}", "--image=registry.example.com/imagebatch:1", *flags]) == 0
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def executors(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The containers, by the name of their component."""
    found: dict[str, dict[str, Any]] = spec["deploymentSpec"]["executors"]
    return found


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All tasks that start a container, whatever group they are in."""
    dags = [spec["root"]["dag"], *(one["dag"] for one in spec["components"].values() if "dag" in one)]
    found = {name: task for dag in dags for name, task in dag["tasks"].items()}
    return {
        name: task
        for name, task in found.items()
        if "dag" not in spec["components"][task["componentRef"]["name"]]
    }


def test_it_is_a_pipeline_and_nothing_else(tmp_path: Path) -> None:
    """Strictly: a field that the message does not have would be refused."""
    spec, _ = compiled(tmp_path / "pipeline.yaml")
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    declared = spec["root"]["inputDefinitions"]["parameters"]
    assert set(declared) == set(PARAMETERS)
    kinds = {name: one["parameterType"] for name, one in declared.items()}
    assert {name for name, kind in kinds.items() if kind == "NUMBER_INTEGER"} == {"shard_size", "top_k"}
    optional = {name for name, one in declared.items() if one.get("isOptional")}
    assert set(declared) - optional == {"input", "runs_uri", "api_url"}


def test_the_image_brings_no_entry_point_so_each_command_is_whole(tmp_path: Path) -> None:
    """`imagebatch STAGE`, the orchestrator's own id as the run's, and no number within a text."""
    spec, _ = compiled(tmp_path / "pipeline.yaml")
    found = executors(spec)
    assert len(found) == len(STAGES)
    for one in found.values():
        container = one["container"]
        assert (container["image"], container["command"]) == (
            "registry.example.com/imagebatch:1",
            ["imagebatch"],
        )
        line = container["args"]
        assert line[line.index("--run-id") + 1] == "{{$.pipeline_job_uuid}}"
    score = found["exec-score"]["container"]["args"]
    assert score[score.index("--shard") + 1] == "{{$.inputs.parameters['shard']}}"


def test_the_shards_are_a_loop_behind_a_branch(tmp_path: Path) -> None:
    """Nothing but preprocess is outside of `shards > 0`; the loop is over texts, as many at once as asked."""
    spec, _ = compiled(tmp_path / "pipeline.yaml", "--at-once=7")
    dags = [spec["root"]["dag"], *(one["dag"] for one in spec["components"].values() if "dag" in one)]
    (branch,) = (task for dag in dags for task in dag["tasks"].values() if "triggerPolicy" in task)
    assert branch["triggerPolicy"]["condition"].endswith("> 0")
    assert len(spec["root"]["dag"]["tasks"]) == 2  # preprocess, and all that is done with shards
    dag = spec["components"][branch["componentRef"]["name"]]["dag"]["tasks"]
    loop = next(task for name, task in dag.items() if "iteratorPolicy" in task)
    assert loop["iteratorPolicy"]["parallelismLimit"] == 7
    ordered = {"check-predictions": loop, "postprocess": "check-predictions", "report": "postprocess"}
    for name, before in ordered.items():
        wanted = before if isinstance(before, str) else next(k for k, v in dag.items() if v is before)
        assert dag[name]["dependentTasks"] == [wanted]


def test_nothing_is_cached_and_everything_is_tried_again(tmp_path: Path) -> None:
    """A score out of a cache would be one that nobody asked the model for."""
    spec, _ = compiled(tmp_path / "pipeline.yaml")
    found = tasks(spec)
    assert len(found) == len(STAGES)
    for name, task in found.items():
        assert not task["cachingOptions"].get("enableCache", False)
        stage = next(one for one in STAGES if one.name == name)
        assert task["retryPolicy"]["maxRetryCount"] == stage.retries


@pytest.mark.parametrize("claim", ["", "--claim=imagebatch-data"])
def test_what_is_said_to_kubernetes(tmp_path: Path, claim: str) -> None:
    """Not root, a time limit, the secret's keys as variables, the claim where it is asked for."""
    flags = [
        "--secret=runs-s3",
        "--secret-keys=AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY",
        *filter(None, [claim]),
    ]
    _, platform = compiled(tmp_path / "pipeline.yaml", *flags)
    found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(found) == len(STAGES)
    for one in found.values():
        json_format.ParseDict(one, config_pb2.KubernetesExecutorConfig(), ignore_unknown_fields=False)
        context = one["securityContext"]
        assert (int(context["runAsUser"]), int(context["runAsGroup"]), context["runAsNonRoot"]) == (
            10001,
            10001,
            True,
        )
        (secret,) = one["secretAsEnv"]
        assert [pair["envVar"] for pair in secret["keyToEnv"]] == [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        ]
        assert int(one["activeDeadlineSeconds"]) == 6 * 3600
        assert [mount["mountPath"] for mount in one.get("pvcMount", [])] == (["/data"] if claim else [])


def test_a_plain_pipeline_says_nothing_to_kubernetes(tmp_path: Path) -> None:
    """As Vertex AI wants it: one document."""
    assert len(compiled(tmp_path / "pipeline.yaml", "--plain")) == 1


def test_a_parameter_that_is_missing_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 and one line."""
    assert main(["local", f"--root={tmp_path}", "--set=input=x"]) == 2
    assert "runs_uri, api_url: no value" in capsys.readouterr().err


@pytest.mark.parametrize("half", [["--secret=runs-s3"], ["--secret-keys=TOKEN"], ["--at-once=0"]])
def test_half_a_secret_is_refused(half: list[str], tmp_path: Path) -> None:
    """Its keys would be in no stage, and nothing would say so; and no shard at once is no pipeline."""
    with pytest.raises(SystemExit) as ended:
        main(["compile", f"--out={tmp_path / 'pipeline.yaml'}", *half])
    assert ended.value.code == 2
    assert not (tmp_path / "pipeline.yaml").exists()
