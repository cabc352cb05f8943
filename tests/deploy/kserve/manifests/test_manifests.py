"""The manifests for KServe: what schemas cannot say of them, and that schemas have nothing against them."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.kserve.manifests.conftest import KSERVE, ROOT, Build, Manifest
from tests.deploy.kserve.manifests.schemas import validate

BUILDS = [
    ("minikube",),
    ("minikube", "predictor"),
    ("minikube", "openvino"),
    ("cluster",),
    ("cluster", "canary"),
    ("cluster", "predictor"),
]
IDS = ["-".join(names) for names in BUILDS]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [found for found in manifests if found["kind"] == kind]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each pod that would be made, by the name of what makes it."""
    for found in manifests:
        name = f"{found['kind']}/{found['metadata']['name']}"
        match found["kind"]:
            case "Pod" | "ServingRuntime":
                yield name, found["spec"]
            case "Job":
                yield name, found["spec"]["template"]["spec"]
            case "CronJob":
                yield name, found["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def service(manifests: list[Manifest]) -> dict[str, Any]:
    (found,) = of_kind(manifests, "InferenceService")
    return found


def runtime(manifests: list[Manifest]) -> dict[str, Any]:
    """The runtime that the service names."""
    name = service(manifests)["spec"]["predictor"]["model"]["runtime"]
    (found,) = [one for one in of_kind(manifests, "ServingRuntime") if one["metadata"]["name"] == name]
    return found


def batch(manifests: list[Manifest], name: str = "imagebatch-nightly") -> dict[str, str]:
    """The variables of a batch's container, its own last."""
    maps = {found["metadata"]["name"]: found["data"] for found in of_kind(manifests, "ConfigMap")}
    (container,) = next(spec for owner, spec in pods(manifests) if owner.endswith(f"/{name}"))["containers"]
    values: dict[str, str] = {}
    for source in container["envFrom"]:
        values |= maps.get(source.get("configMapRef", {}).get("name"), {})
    return values | {one["name"]: one["value"] for one in container["env"] if "value" in one}


@pytest.mark.parametrize("names", BUILDS, ids=IDS)
def test_every_manifest_is_what_its_schema_says(build: Build, names: tuple[str, ...]) -> None:
    """Strictly: a field that no schema knows would be ignored, or refused, by a cluster."""
    manifests = build(*names)
    assert {"Namespace", "CronJob", "NetworkPolicy", "ServingRuntime", "InferenceService"} <= {
        found["kind"] for found in manifests
    }
    for found in sorted(manifests, key=lambda one: one["apiVersion"].startswith("serving.")):
        validate(found)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("InferenceService", ("spec", "predictor", "model", "storageURI"), "s3://x"),
        ("InferenceService", ("spec", "predictor", "minReplica"), 1),
        ("InferenceService", ("spec", "predictor", "model", "modelFormat"), "imagebatch"),
        ("ServingRuntime", ("spec", "containers", 0, "images"), "x"),
        ("ServingRuntime", ("spec", "supportedModelFormats", 0, "autoselect"), True),
        ("CronJob", ("spec", "jobTemplate", "spec", "podFailurePolicies"), {}),
        ("NetworkPolicy", ("spec", "policyType"), ["Ingress"]),
    ],
)
def test_a_mistyped_field_is_found(build: Build, kind: str, path: tuple[Any, ...], value: Any) -> None:
    """The schemas are strict: each of these would pass a cluster's own eyes, or a careless validator's."""
    broken = copy.deepcopy(of_kind(build("minikube"), kind)[0])
    place: Any = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(broken)


@pytest.mark.parametrize("names", BUILDS, ids=IDS)
def test_every_pod_is_restricted(build: Build, names: tuple[str, ...]) -> None:
    """As the namespace enforces: no root, no privileges, a read-only file system, bounds on what it takes."""
    manifests = build(*names)
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    seen = 0
    for owner, spec in pods(manifests):
        for container in spec["containers"]:
            security = spec.get("securityContext", {}) | container["securityContext"]
            assert security["runAsNonRoot"] is True, owner
            assert security["runAsUser"] > 0, owner
            assert security["allowPrivilegeEscalation"] is False, owner
            assert security["readOnlyRootFilesystem"] is True, owner
            assert security["capabilities"] == {"drop": ["ALL"]}, owner
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, owner
            assert set(container["resources"]) == {"requests", "limits"}, owner
            assert set(container["resources"]["limits"]) == {"cpu", "memory"}, owner
            seen += 1
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim"}, owner
            assert volume.get("emptyDir", {"sizeLimit": ""}).get("sizeLimit") is not None, owner
    assert seen >= 2
    accounts = of_kind(manifests, "ServiceAccount")
    assert [one["automountServiceAccountToken"] for one in accounts] == [False, False]


@pytest.mark.parametrize("names", BUILDS, ids=IDS)
def test_no_management_port_is_reachable(build: Build, names: tuple[str, ...]) -> None:
    """TorchServe's management API keeps its loopback address, and no port or policy names 8081 of a model."""
    manifests = build(*names)
    for found in of_kind(manifests, "ServingRuntime"):
        (container,) = found["spec"]["containers"]
        assert [port["containerPort"] for port in container["ports"]] == [8080]
        assert not [one for one in container.get("env", []) if "MANAGEMENT" in one["name"]]
    for found in of_kind(manifests, "NetworkPolicy"):
        for rule in found["spec"].get("ingress", []):
            assert rule["from"], found["metadata"]["name"]
            assert 8081 not in [port["port"] for port in rule["ports"]]
    (deny,) = [one for one in of_kind(manifests, "NetworkPolicy") if one["metadata"]["name"] == "deny-all"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("names", BUILDS, ids=IDS)
def test_no_secret_is_in_the_manifests(build: Build, names: tuple[str, ...]) -> None:
    """Keys are named and made by whoever has them; neither a value nor a default of one is here."""
    manifests = build(*names)
    assert of_kind(manifests, "Secret") == []
    for found in of_kind(manifests, "ConfigMap"):
        assert not [name for name in found["data"] if re.search("KEY|SECRET|TOKEN|PASSWORD", name)]


@pytest.mark.parametrize("names", BUILDS, ids=IDS)
def test_as_many_workers_as_cores(build: Build, names: tuple[str, ...]) -> None:
    """More threads than the limit has cores are throttled; fewer leave paid cores idle."""
    (container,) = runtime(build(*names))["spec"]["containers"]
    told = {one["name"]: one["value"] for one in container.get("env", [])}
    threads = re.search(r'"INFERENCE_NUM_THREADS":"(\d+)"', " ".join(container.get("args", [])))
    workers = told.get("IMAGEBATCH_WORKERS") or (threads and threads[1])
    assert workers == container["resources"]["limits"]["cpu"]


@pytest.mark.parametrize("names", BUILDS, ids=IDS)
def test_the_batch_asks_the_service_by_its_protocol(build: Build, names: tuple[str, ...]) -> None:
    """Name, format, protocol and address of both sides fit, and the runtime exists."""
    manifests = build(*names)
    model = service(manifests)["spec"]["predictor"]["model"]
    found = runtime(manifests)["spec"]
    assert model["modelFormat"]["name"] in [one["name"] for one in found["supportedModelFormats"]]
    assert model["protocolVersion"] in found["protocolVersions"]
    settings = batch(manifests)
    speaks = {"torchserve": "imagebatch-torchserve", "oip": "imagebatch-kserve"}
    wanted = "imagebatch-openvino" if "openvino" in names else speaks[settings["IMAGEBATCH_BACKEND"]]
    assert model["runtime"] == wanted
    assert settings["IMAGEBATCH_MODEL"] == service(manifests)["metadata"]["name"]
    assert "//solar-cells-predictor." in settings["IMAGEBATCH_API_URL"].replace("prev-", "")
    assert model["storageUri"].startswith("pvc://" if names[0] == "minikube" else "s3://")


def test_settings_of_the_batch_are_settings(build: Build) -> None:
    """Every variable is one that the stages know: a mistyped one would be refused by the first run only."""
    page = (ROOT / "docs" / "reference" / "protocol.md").read_text("utf-8")
    for names in BUILDS:
        for found in of_kind(build(*names), "ConfigMap"):
            for variable in found["data"]:
                flag = variable.removeprefix("IMAGEBATCH_").lower().replace("_", "-")
                assert f"`--{flag}`" in page, variable


def test_exit_codes_decide_about_a_retry(build: Build) -> None:
    """What trying again cannot change fails the Job at once, and a drained node costs no try."""
    table = (ROOT / "docs" / "reference" / "protocol.md").read_text("utf-8")
    (job,) = of_kind(build("cluster"), "CronJob")
    spec = job["spec"]["jobTemplate"]["spec"]
    drained, final = spec["podFailurePolicy"]["rules"]
    assert drained["action"] == "Ignore"
    assert final["action"] == "FailJob"
    assert {65, 78, 99} <= set(final["onExitCodes"]["values"])
    assert not {69, 74, 75} & set(final["onExitCodes"]["values"])
    assert all(f"| {code} |" in table for code in (65, 69, 74, 75, 78, 99))
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["concurrencyPolicy"] == "Forbid"


def test_a_run_is_never_split_between_two_models(build: Build) -> None:
    """While a canary is on, the nightly run asks the old revision by its name, and the trial the new one."""
    manifests = build("cluster", "canary")
    found = service(manifests)
    assert found["metadata"]["annotations"]["serving.kserve.io/enable-tag-routing"] == "true"
    assert found["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
    assert found["spec"]["predictor"]["canaryTrafficPercent"] == 10
    old, new = (one["spec"]["predictor"]["model"]["storageUri"] for one in (service(build("cluster")), found))
    assert new != old
    assert batch(manifests)["IMAGEBATCH_API_URL"].startswith("http://prev-solar-cells-predictor.")
    trial = batch(manifests, "imagebatch-canary")
    assert trial["IMAGEBATCH_API_URL"].startswith("http://latest-solar-cells-predictor.")
    assert trial["IMAGEBATCH_INPUT"] == batch(manifests)["IMAGEBATCH_INPUT"]


@pytest.mark.parametrize("names", BUILDS, ids=IDS)
def test_every_image_is_where_the_cluster_finds_it(build: Build, names: tuple[str, ...]) -> None:
    """In a registry; on minikube what was loaded there is not asked for elsewhere, as `:latest` would be."""
    for owner, spec in pods(build(*names)):
        for container in spec["containers"]:
            if names[0] == "cluster":
                assert container["image"].startswith("registry.example.com/"), owner
            else:
                assert container["imagePullPolicy"] == "IfNotPresent", owner


def test_minikube_runs_without_knative_and_without_a_bucket(build: Build) -> None:
    """Standard mode, volumes that are there, and a nightly run that only a person starts."""
    manifests = build("minikube")
    annotations = service(manifests)["metadata"]["annotations"]
    assert annotations["serving.kserve.io/deploymentMode"] == "Standard"
    claims = {found["metadata"]["name"] for found in of_kind(manifests, "PersistentVolumeClaim")}
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for _, spec in pods(manifests)
        for volume in spec.get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    assert used <= claims
    assert service(manifests)["spec"]["predictor"]["model"]["storageUri"].split("/")[2] in claims
    assert of_kind(manifests, "CronJob")[0]["spec"]["suspend"] is True


def test_the_storage_initialiser_is_restricted_too() -> None:
    """The patch that releases without a security context need gives what the namespace enforces."""
    patch = yaml.safe_load((KSERVE / "storage-initializer.yaml").read_text("utf-8"))
    security = patch["spec"]["container"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
