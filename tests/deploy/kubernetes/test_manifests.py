"""The manifests without Airflow: what schemas say, what exit codes do, that no pod is loose."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kserve.manifests.schemas import validate

ROOT = Path(__file__).resolve().parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sys.executable).with_name("kubectl")
FOLDERS = ["base", "overlays/volumes", "overlays/bucket", "shards", "overlays/bucket/shards"]

Manifest = dict[str, Any]


@cache
def text(folder: str) -> str:
    done = subprocess.run(
        [KUBECTL, "kustomize", KUBERNETES / folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def built(folder: str) -> list[Manifest]:
    return [found for found in yaml.safe_load_all(text(folder)) if found]


def jobs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for found in manifests:
        match found["kind"]:
            case "Job":
                yield found["metadata"]["name"], found["spec"]
            case "CronJob":
                yield found["metadata"]["name"], found["spec"]["jobTemplate"]["spec"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_manifest_is_what_its_schema_says(folder: str) -> None:
    """Strictly: a field that no schema knows would be ignored, or refused, by a cluster."""
    manifests = built(folder)
    assert "ConfigMap" in {found["kind"] for found in manifests}
    for found in manifests:
        validate(found)
        assert found["kind"] == "Namespace" or found["metadata"]["namespace"] == "imagebatch"


def test_airflow_may_do_what_a_stage_takes_and_no_more() -> None:
    """Its account makes, reads and deletes pods where the stages run; no shell, no Secret."""
    manifests = built("airflow-access")
    for found in manifests:
        validate(found)
    (role,) = [found for found in manifests if found["kind"] == "Role"]
    assert {(*rule["resources"], *rule["verbs"]) for rule in role["rules"]} == {
        ("pods", "create", "get", "list", "delete"),
        ("pods/log", "get"),
        ("events", "list"),
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pod_is_confined_and_bounded(folder: str) -> None:
    """As the namespace enforces: no root, no privileges, a read-only file system, bounds on what it takes."""
    seen = 0
    for name, spec in jobs(built(folder)):
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "imagebatch", name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["restartPolicy"] == "Never", name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert set(container["resources"]) == {"requests", "limits"}, name
        volumes = {each["name"] for each in pod["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == volumes, name
        assert ("data" in volumes) is ("bucket" not in folder), name
        assert spec["activeDeadlineSeconds"] > 0, name
        seen += 1
    assert seen == (3 if folder.endswith("shards") else 1)


@pytest.mark.parametrize("folder", FOLDERS)
def test_exit_codes_decide_about_a_retry(folder: str) -> None:
    """What trying again cannot change ends the Job or its index at once, and a drained node costs no try."""
    for name, spec in jobs(built(folder)):
        drained, final = spec["podFailurePolicy"]["rules"]
        assert drained == {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }
        assert final["action"] == ("FailIndex" if "backoffLimitPerIndex" in spec else "FailJob"), name
        assert {2, 65, 78, 99} <= set(final["onExitCodes"]["values"]), name
        assert not {69, 74, 75, 137} & set(final["onExitCodes"]["values"]), name


def test_the_night_is_not_started_twice() -> None:
    """One run at a time, in a named zone; one that could not start within the hour is left out."""
    (cron,) = [found["spec"] for found in built("overlays/volumes") if found["kind"] == "CronJob"]
    assert (cron["concurrencyPolicy"], cron["timeZone"]) == ("Forbid", "Etc/UTC")
    assert 0 < cron["startingDeadlineSeconds"] <= 3600


def test_policies_close_the_namespace() -> None:
    """Nobody reaches a batch, and a batch reaches names, the model server and, where it must, the bucket."""
    manifests = built("overlays/bucket")
    policies = {
        found["metadata"]["name"]: found["spec"] for found in manifests if found["kind"] == "NetworkPolicy"
    }
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name in ("batch", "stage"):
        assert "ingress" not in policies[name]
        assert "Ingress" in policies[name]["policyTypes"]
    (block,) = policies["bucket"]["egress"][0]["to"]
    assert "169.254.169.254/32" in block["ipBlock"]["except"]


def test_no_secret_is_in_the_manifests() -> None:
    """Keys are named and made by whoever has them."""
    for folder in FOLDERS:
        manifests = built(folder)
        assert not [found for found in manifests if found["kind"] == "Secret"]
        for found in manifests:
            if found["kind"] == "ConfigMap":
                assert not [name for name in found["data"] if "KEY" in name or "TOKEN" in name]


def test_settings_are_settings() -> None:
    """Every variable is one that the stages know: a mistyped one would be refused by the first run only."""
    page = (ROOT / "docs" / "reference" / "protocol.md").read_text("utf-8")
    for folder in FOLDERS:
        for found in built(folder):
            for variable in found.get("data", {}):
                assert f"| `{variable}` |" in page, variable


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a shell whose kubectl runs Jobs on this machine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    kubectl = programs / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nexec {sys.executable} -I {ROOT}/tests/support/job_controller.py "$@"\n')
    kubectl.chmod(0o755)
    (tmp_path / "state").mkdir()
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECTL_REAL": str(KUBECTL),
        "KUBECTL_STATE": str(tmp_path / "state"),
        "KUBECTL_PROGRAMS": str(programs),
        "KUBECTL_SET_CALLS": str(tmp_path / "calls"),
    }


def imagebatch(here: dict[str, str], body: str) -> Path:
    """Put a program in the place of `imagebatch` that writes down how it was called."""
    program = Path(here["KUBECTL_PROGRAMS"], "imagebatch")
    program.write_text(f'#!/bin/sh\necho "$IMAGEBATCH_RUN_ID $@" >> "$CALLS"\n{body}\n')
    program.chmod(0o755)
    return Path(here["KUBECTL_SET_CALLS"])


SHARDS = 'if [ "$1" = preprocess ]; then echo \'{"stage": "preprocess", "accepted": 9, "shards": 3}\'; fi'


def run(here: dict[str, str], name: str = "night") -> "subprocess.CompletedProcess[str]":
    """Run a batch as the page says."""
    argv = [KUBERNETES / "shards" / "run", name]
    return subprocess.run(argv, env=here, capture_output=True, text=True, check=False)


def test_a_run_is_three_jobs_and_a_pod_per_shard(here: dict[str, str]) -> None:
    """Each Job is waited for, the first tells the number of shards, and a second call does nothing."""
    calls = imagebatch(here, SHARDS)
    done = run(here)
    assert done.returncode == 0, done.stderr
    expected = [
        "night preprocess",
        "night check --suite=manifest",
        *(f"night score --shard={shard}" for shard in range(3)),
        "night check --suite=predictions",
        "night postprocess",
        "night report",
    ]
    assert calls.read_text().splitlines() == expected
    assert run(here).returncode == 0
    assert calls.read_text().splitlines() == expected


def test_a_shard_that_fails_for_a_while_is_tried_again(here: dict[str, str], tmp_path: Path) -> None:
    """Exit code 69 costs the index a try, not the Job."""
    up = tmp_path / "up"
    fails = f"if [ \"$*\" = 'score --shard=1' ] && ! [ -e {up} ]; then touch {up}; exit 69; fi"
    calls = imagebatch(here, f"{SHARDS}\n{fails}")
    done = run(here)
    assert done.returncode == 0, done.stderr
    assert calls.read_text().splitlines().count("night score --shard=1") == 2


def test_data_that_is_refused_ends_the_run_and_a_second_call_goes_on(
    here: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 65 is tried once; when its cause is gone, the same command makes the failed Job again."""
    calls = imagebatch(
        here, f'{SHARDS}\nif [ "$2" = --suite=predictions ] && ! [ -e {tmp_path}/better ]; then exit 65; fi'
    )
    done = run(here)
    assert (done.returncode, "exit code 65 after 1 tries" in done.stderr) == (65, True), done.stderr
    assert not [line for line in calls.read_text().splitlines() if "postprocess" in line]
    (tmp_path / "better").touch()
    assert run(here).returncode == 0
    said = calls.read_text().splitlines()
    assert said.count("night preprocess") == 1
    assert said[-1] == "night report"


def test_a_run_without_shards_still_gets_its_table(here: dict[str, str]) -> None:
    """Where every image was refused nothing is scored, and the certificate says so."""
    calls = imagebatch(here, SHARDS.replace('"shards": 3', '"shards": 0'))
    assert run(here).returncode == 0
    assert not [line for line in calls.read_text().splitlines() if "score" in line]
    assert "night postprocess" in calls.read_text()


@pytest.mark.parametrize("name", ["Night", "-a", "a" * 51, "a b"])
def test_a_name_that_no_job_can_have_is_refused(here: dict[str, str], name: str) -> None:
    """The message says what is allowed, and nothing is made."""
    done = run(here, name)
    assert (done.returncode, "lower-case letters" in done.stderr) == (78, True)
    assert not list(Path(here["KUBECTL_STATE"]).iterdir())


def test_airflows_values_name_what_is_there() -> None:
    """Variables of the chart's values are Airflow's or ours, as everywhere, and no value is a secret."""
    values = yaml.safe_load((KUBERNETES / "airflow-values.yaml").read_text("utf-8"))
    ours = {each["name"]: each.get("value", "") for each in values["env"]}
    told = (ROOT / "airflow" / "airflow.env").read_text("utf-8")
    for name, value in ours.items():
        assert name.startswith(("AIRFLOW__", "IMAGEBATCH_")), name
        if f"{name}=" in told and name != "AIRFLOW__CORE__EXECUTOR":
            assert f"{name}={value}\n" in told, f"{name} is another one in airflow.env"
    assert ours["IMAGEBATCH_OPERATOR"] == "kubernetes"
    assert "password" not in json.dumps(values).lower()


def test_the_template_for_stages_is_a_pods() -> None:
    """It names nodes and an account; what confines a stage is not its to say."""
    template = yaml.safe_load((KUBERNETES / "airflow-access" / "stage-pod.yaml").read_text("utf-8"))
    whole = {**template, "spec": {**template["spec"], "containers": [{"name": "imagebatch", "image": "x"}]}}
    validate(whole)
    assert "securityContext" not in template["spec"]
