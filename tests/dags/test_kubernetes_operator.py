"""The operator's real code and the real client against an API on loopback, whose pods are processes."""

import json
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
import yaml
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from tests.support.cluster import KUBERNETES, Cluster, cluster

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "imagebatch-test-stage:1"
RUN_ID = "manual__2026-01-31T02:00:00+00:00"
WHOLE = {
    "imagebatch.installation": "tests",
    "imagebatch.dag": "batch",
    "imagebatch.dag-run": RUN_ID,
    "imagebatch.run": f"batch.-{RUN_ID}",
    "imagebatch.task": "score",
    "imagebatch.map-index": "3",
    "imagebatch.attempt": "2",
}
SECRETS = {"imagebatch-api": {"IMAGEBATCH_API_TOKEN": "5ec4e7"}}
Stage = Callable[..., Any]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a cluster whose one image runs a script as `imagebatch`."""
    folder = tmp_path_factory.mktemp("image")
    program = folder / "imagebatch"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -Iuc "$@"\n')
    program.chmod(0o755)
    with cluster({IMAGE: folder}, SECRETS) as found:
        yield found


@pytest.fixture
def stage(here: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    """Build a stage from a script, as the DAG would build it."""
    settings = {"IMAGE": IMAGE, "RUNS": "imagebatch-runs", "INPUTS": "imagebatch-data/inputs"}
    settings |= {"NAMESPACE": "batch", "KEYS": "imagebatch-keys", "SECRETS": "imagebatch-api"}
    for name, value in settings.items():
        monkeypatch.setenv(f"IMAGEBATCH_KUBERNETES_{name}", value)
    kubeconfig = str(here.kubeconfig(tmp_path / "kubeconfig"))
    # Here, not above: only an installation that has chosen it loads the cluster's client.
    from imagebatch_dags.kubernetes_operator import KubernetesStageOperator  # noqa: PLC0415 - Airflow's settings must stand first
    from imagebatch_dags.pod import stage_pod  # noqa: PLC0415 - Airflow's settings must stand first

    def make(script: str, *more: str, **changed: Any) -> Any:
        annotations = WHOLE | changed.pop("annotations", {})
        arguments = stage_pod() | {"annotations": annotations, "config_file": kubeconfig, "name": "stage"}
        return KubernetesStageOperator(
            task_id="score", command=[script, *more], **{"environment": {"A": "b"}, **arguments, **changed}
        )

    return make


def result(**more: Any) -> str:
    """Write a script that ends well."""
    return f"print({json.dumps({'stage': 'score', **more})!r})"


def waiting(gate: Path, end: str) -> str:
    """Write a script that ends when a file is there."""
    begin = f"import os, time\nprint('begun')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)"
    return f"{begin}\n{end}"


def test_the_last_line_becomes_the_result_and_the_pod_is_gone(here: Cluster, stage: Stage) -> None:
    """A pod is made, followed, read and deleted; what stands between the lines does not matter."""
    operator = stage(f"import sys; {result(predicted=5)}; print('warning', file=sys.stderr)")
    assert operator.execute({}) == {"stage": "score", "predicted": 5}
    assert operator.result == {"stage": "score", "predicted": 5}
    assert gone(here)


def test_the_pod_is_what_kubernetes_takes_and_confined(stage: Stage) -> None:
    """Strictly by the schema; no root, no privilege, nothing writable but runs and a bounded /tmp."""
    operator = stage("pass")
    pod = described(operator)
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    limits = {"cpu": "2", "memory": "2Gi"}
    assert container["resources"] == {"requests": limits, "limits": limits}
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert {path: each.get("readOnly", False) for path, each in mounts.items()} == {
        "/tmp": False,  # noqa: S108 - inside the pod
        "/data/inputs": True,
        "/data/runs": False,
        "/run/imagebatch/keys": True,
    }
    assert mounts["/data/inputs"]["subPath"] == "inputs"
    volumes = {each.pop("name"): each for each in spec["volumes"]}
    assert volumes["tmp"] == {"emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}}
    assert volumes["inputs"]["persistentVolumeClaim"] == {"claimName": "imagebatch-data", "readOnly": True}
    assert volumes["keys"]["secret"]["secretName"] == "imagebatch-keys"


def test_secrets_are_named_and_never_shown(stage: Stage) -> None:
    """The pod refers to a Secret, the stage sees its value, and no manifest holds it."""
    told = (
        "import json, os; "
        "print(json.dumps({'stage': 'score', 'key': len(os.environ['IMAGEBATCH_API_TOKEN'])}))"
    )
    operator = stage(told)
    assert operator.execute({}) == {"stage": "score", "key": 6}
    assert "5ec4e7" not in str(vars(operator))


def test_no_argument_can_ask_for_a_secret(stage: Stage) -> None:
    """Kubernetes puts variables in place of $(NAME): an input of that name stays a name."""
    said = (
        "import json, os, sys; "
        "print(json.dumps({'stage': 'score', 'argv': sys.argv[1:], 'A': os.environ['A']}))"
    )
    asked = "--input=s3://$(IMAGEBATCH_API_TOKEN)/$$x"
    operator = stage(said, asked, "", environment={"A": "$(IMAGEBATCH_API_TOKEN)"}, shard=7)
    assert operator.execute({}) == {
        "stage": "score",
        "argv": [asked, "--shard=7"],
        "A": "$(IMAGEBATCH_API_TOKEN)",
    }


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        *((code, AirflowFailException) for code in (2, 65, 78)),
        (99, AirflowSkipException),
        *((code, AirflowException) for code in (69, 74, 75, 1)),
    ],
)
def test_exit_codes_mean_what_they_mean_for_a_process(
    here: Cluster, stage: Stage, code: int, verdict: type[Exception]
) -> None:
    """The verdict on a pod is the one on a process, and the pod is gone all the same."""
    with pytest.raises(AirflowException) as raised:
        stage(f"import sys; print('last words', file=sys.stderr); sys.exit({code})").execute({})
    assert type(raised.value) is verdict
    assert code == 99 or "last words" in str(raised.value)
    assert gone(here)


def test_running_out_of_memory_is_named_and_retried(here: Cluster, stage: Stage) -> None:
    """The kubelet knows why a container was killed; the message says it."""
    operator = stage("import time; print('begun'); time.sleep(600)")
    ends = in_background(operator)
    here.kill(running(here), "OOMKilled")
    with pytest.raises(AirflowException, match="out of memory") as raised:
        ends()
    assert type(raised.value) is AirflowException


def test_a_stopped_task_stops_its_pod(here: Cluster, stage: Stage) -> None:
    """Whoever marks a task as failed has its pod stopped politely, and the task ends."""
    operator = stage("import time; print('begun'); time.sleep(600)")
    ends = in_background(operator)
    running(here)
    operator.on_kill()
    with pytest.raises(AirflowException, match=r"deleted while it ran|exit code 130"):
        ends()
    assert gone(here)


def test_a_retry_waits_for_the_pod_of_a_killed_worker(here: Cluster, stage: Stage, tmp_path: Path) -> None:
    """The next attempt finds the healthy pod, hears it from its first line on, and takes its result."""
    gate = tmp_path / "gate"
    script = waiting(gate, result(n=1))
    left_behind = abandoned(stage(script, annotations={"imagebatch.attempt": "1"}))
    ends = in_background(stage(script))
    gate.touch()
    assert ends() == {"stage": "score", "n": 1}
    assert here.made[-1] == left_behind
    assert gone(here)


def test_a_pod_that_has_succeeded_unseen_is_not_run_again(here: Cluster, stage: Stage) -> None:
    """Its result is still in its log."""
    left_behind = abandoned(stage(result(n=2), annotations={"imagebatch.attempt": "1"}))
    here.wait(left_behind)
    assert stage(result(n=2)).execute({}) == {"stage": "score", "n": 2}
    assert here.made[-1] == left_behind


@pytest.mark.parametrize("difference", ["command", "variable", "failed", "superseded"])
def test_another_pod_is_ended_and_a_new_one_made(here: Cluster, stage: Stage, difference: str) -> None:
    """One that does something else, or has failed, is no use; beside a later one an earlier cannot finish."""
    script = "import sys, time; time.sleep(600)" if difference != "failed" else "import sys; sys.exit(69)"
    changed = {"command": {}, "variable": {"environment": {"A": "c"}}}.get(difference, {})
    first = stage(script, annotations={"imagebatch.attempt": "1"}, **changed)
    old = [abandoned(first)]
    if difference == "failed":
        here.wait(old[0])
    if difference == "superseded":
        old.append(abandoned(stage("import time; time.sleep(60)", annotations={"imagebatch.attempt": "1"})))
    assert stage(result(n=3)).execute({}) == {"stage": "score", "n": 3}
    assert here.made[-1] not in old
    assert gone(here)


def test_another_shard_and_another_installation_are_left_alone(here: Cluster, stage: Stage) -> None:
    """What a retry ends is its own task's: not the neighbour's, nor that of another Airflow."""
    script = "import time; time.sleep(600)"
    others = [
        abandoned(stage(script, annotations={"imagebatch.map-index": "4"})),
        abandoned(stage(script, annotations={"imagebatch.installation": "another"})),
    ]
    stage(result()).execute({})
    assert set(here.pods) == set(others)
    for each in others:
        here.delete(each, 0)
    assert gone(here)


def test_an_api_that_is_away_leaves_the_pod_to_the_next_attempt(
    here: Cluster, stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An attempt that loses sight of its pod does not end it, and the next one takes its result."""
    from airflow.providers.cncf.kubernetes import kubernetes_helper_functions as provider  # noqa: PLC0415 - Airflow's settings must stand first

    monkeypatch.setattr(provider, "_default_wait", lambda _: 0.01)  # its pauses are a quarter of a minute
    gate = tmp_path / "gate"
    script = waiting(gate, result(n=4))
    ends = in_background(stage(script))
    name = running(here)
    here.away.set()
    gate.touch()
    here.wait(name)
    with pytest.raises(AirflowException, match="the API is away"):
        ends()
    here.away.clear()
    assert stage(script).execute({}) == {"stage": "score", "n": 4}
    assert here.made[-1] == name


def test_a_missing_image_is_named_and_retried(here: Cluster, stage: Stage) -> None:
    """The kubelet's words are the task's message; nothing is left of the attempt."""
    with pytest.raises(AirflowException, match=r"nowhere/missing:1: not found"):
        stage("pass", image="nowhere/missing:1").execute({})
    assert gone(here)


def test_a_pod_that_the_cluster_refuses_is_told(stage: Stage, tmp_path: Path) -> None:
    """The API's own words are the task's message."""
    template = tmp_path / "template.yaml"
    volume = {"name": "tmp", "emptyDir": {}}
    template.write_text(yaml.safe_dump({"spec": {"containers": [], "volumes": [volume]}}))
    with pytest.raises(AirflowException, match=r"the cluster refuses: .* has one twice"):
        stage("pass", pod_template_file=str(template)).execute({})


def test_the_template_says_where_and_cannot_loosen_a_stage(stage: Stage, tmp_path: Path) -> None:
    """Nodes, tolerations, priority and account are the template's; confinement is not."""
    wanted = {
        "nodeSelector": {"pool": "batch"},
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "batch",
        "serviceAccountName": "imagebatch-stage",
        "imagePullSecrets": [{"name": "registry"}],
    }
    loose = {"name": "imagebatch", "securityContext": {"privileged": True, "readOnlyRootFilesystem": False}}
    template = tmp_path / "template.yaml"
    template.write_text(
        yaml.safe_dump({"metadata": {"labels": {"team": "a"}}, "spec": {**wanted, "containers": [loose]}})
    )
    pod = described(stage("pass", pod_template_file=str(template)))
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert wanted.items() <= pod["spec"].items()
    assert pod["metadata"]["labels"]["team"] == "a"
    security = pod["spec"]["containers"][0]["securityContext"]
    assert (security["privileged"], security["readOnlyRootFilesystem"]) == (False, True)


@pytest.mark.parametrize("content", [None, "[]", "{spec: [}"])
def test_a_template_that_is_none_is_named(stage: Stage, tmp_path: Path, content: str | None) -> None:
    """Without it pods would silently run anywhere: the provider itself only warns of a missing one."""
    template = tmp_path / "template.yaml"
    if content is not None:
        template.write_text(content)
    with pytest.raises(AirflowFailException, match=r"template\.yaml"):
        stage("pass", pod_template_file=str(template)).execute({})


def test_no_cluster_is_named(stage: Stage, tmp_path: Path) -> None:
    """A worker that finds no cluster fails at once and says what to set."""
    empty = tmp_path / "empty"
    empty.write_text("")
    with pytest.raises(AirflowFailException, match="set KUBECONFIG"):
        stage("pass", config_file=str(empty)).execute({})


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("batch", "batch"),
        (RUN_ID, "manual__2026-01-31T02_00_00_00_00-"),
        ("x" * 200, "x" * 46 + "-"),
        ("ü", ""),
        ("-1", "1-"),
    ],
)
def test_labels_are_legal_and_tell_texts_apart(text: str, label: str) -> None:
    """Any text becomes at most 63 legal characters, and two texts never the same ones."""
    from imagebatch_dags.pod import LABEL, label_values  # noqa: PLC0415 - Airflow's settings must stand first

    made = label_values({"a": text, "b": f"{text}."})
    assert LABEL.fullmatch(made["a"])
    assert made["a"].startswith(label)
    assert made["a"] != made["b"]


def test_a_task_that_is_not_mapped_has_no_index(stage: Stage) -> None:
    """Kubernetes refuses -1 as a label; the annotation keeps it."""
    metadata = described(stage("pass", annotations={"imagebatch.map-index": "-1"}))["metadata"]
    assert "imagebatch.map-index" not in metadata["labels"]
    assert metadata["annotations"]["imagebatch.map-index"] == "-1"
    assert metadata["annotations"]["imagebatch.dag-run"] == RUN_ID


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MEMORY", "2g", "2Gi"),
        ("CPUS", "many", "like 2"),
        ("RUNS", "Claim", "imagebatch-runs"),
        ("INPUTS", "claim/../etc", "imagebatch-data"),
        ("PULL_POLICY", "always", "IfNotPresent"),
        ("SECRETS", "a,B", "imagebatch-stores"),
        ("USER", "0:0", "10001:10001"),
        ("STARTUP", "soon", "600"),
        ("RUNS", "", "s3://bucket/runs"),
    ],
)
def test_a_wrong_setting_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    """The DAG does not load, and the message says which variable and what is allowed."""
    monkeypatch.setenv(f"IMAGEBATCH_KUBERNETES_{name}", value)
    with pytest.raises(ValueError, match=f"IMAGEBATCH_KUBERNETES_{name}.*{told}"):
        stage("pass")


def test_runs_in_a_bucket_need_no_claim(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With runs, inputs and models in stores a pod has no volume but its /tmp."""
    for name in ("RUNS", "INPUTS", "KEYS"):
        monkeypatch.setenv(f"IMAGEBATCH_KUBERNETES_{name}", "")
    monkeypatch.setenv("IMAGEBATCH_RUNS_URI", "s3://bucket/runs")
    assert [each["name"] for each in described(stage("pass"))["spec"]["volumes"]] == ["tmp"]


def test_orphaned_pods_are_found_and_ended(
    here: Cluster, stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the DAG runs finds the cluster by itself, asks Airflow, and ends the pods whose run has ended."""
    script = "import time; time.sleep(600)"
    old = abandoned(stage(script, annotations={"imagebatch.dag-run": "r0"}))
    kept = abandoned(stage(script))
    instance = SimpleNamespace(
        get_dr_count=lambda *, run_ids, **_: run_ids != ["r0"], get_ti_count=lambda **_: 1
    )
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "kubernetes")
    monkeypatch.setenv("IMAGEBATCH_INSTALLATION", "tests")
    kubeconfig = str(here.kubeconfig(tmp_path / "found"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", kubeconfig)
    module = runpy.run_path(str(ROOT / "dags" / "imagebatch_maintenance.py"))
    function = module["stop_orphans"].function
    function.__globals__["get_current_context"] = lambda: {"ti": instance}  # a task's context is Airflow's
    assert function() == {"seen": 2, "stopped": 1}
    until(lambda: set(here.pods) == {kept})
    assert old not in here.pods
    here.delete(kept, 0)
    assert gone(here)


def test_a_stage_takes_no_more_than_its_role_allows(here: Cluster, stage: Stage) -> None:
    """Whatever the tests above have made the operator and the client do, Airflow's Role has it."""
    stage(result()).execute({})
    text = (ROOT / "deploy/kubernetes/airflow-access/role.yaml").read_text("utf-8")
    (role,) = [found for found in yaml.safe_load_all(text) if found["kind"] == "Role"]
    allowed = {(name, verb) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}
    assert here.asked <= allowed
    assert ("pods", "create") in here.asked


def described(operator: Any) -> dict[str, Any]:
    """Describe the pod that an operator would ask for, as it is sent."""
    pod = operator.build_pod_request_obj()
    found: dict[str, Any] = operator.client.api_client.sanitize_for_serialization(pod)
    return found


def abandoned(operator: Any) -> str:
    """Start a stage's pod as its worker would, which then dies: nobody follows it."""
    pod = operator.build_pod_request_obj()
    operator.pod_manager.create_pod(pod)
    name: str = pod.metadata.name
    return name


def in_background(operator: Any) -> Callable[[], Any]:
    """Run a stage in a thread; what comes back waits for its end, and ends as it did."""
    ends: list[Any] = []

    def run() -> None:
        try:
            ends.append(operator.execute({}))
        except AirflowException as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> Any:
        thread.join(60)
        if isinstance(ends[0], Exception):
            raise ends[0]
        return ends[0]

    return wait


def running(here: Cluster) -> str:
    """Wait until the newest pod has written a line, and name it."""
    until(lambda: bool(here.pods) and any(pod.lines for pod in here.pods.values()))
    return next(name for name, pod in here.pods.items() if pod.lines)


def gone(here: Cluster) -> bool:
    """Wait until no pod is left."""
    until(lambda: not here.pods)
    return True


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
