"""What every stage's pod is: its image, its limits, its volumes, its secrets, its labels."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubernetes.client import models as k8s

from imagebatch_dags.places import INPUTS, KEYS, MAP_INDEX, MODELS, PROGRAM, RUNS, labels

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TMP = "/tmp"  # noqa: S108 - inside the pod
# What Kubernetes takes as a value of a label.
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
READABLE, DIGITS = 46, 16  # characters of a longer value that stay, and of its SHA-256 that follow

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
FOLDER = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
USER = re.compile(r"[1-9][0-9]{0,8}:[1-9][0-9]{0,8}")
POLICIES = ("Always", "IfNotPresent", "Never")


def stage_pod() -> dict[str, Any]:
    """Build the operator's arguments that every stage shares, from the environment.

    `IMAGEBATCH_KUBERNETES_IMAGE`, `_NAMESPACE`, `_MEMORY`, `_CPUS`, `_MEMORY_REQUEST`, `_CPU_REQUEST`,
    `_TMP`, `_USER`, `_PULL_POLICY`, `_POD_TEMPLATE`, `_STARTUP`, for the volumes `_INPUTS`, `_MODELS`
    and `_RUNS` (a claim's name, or `claim/folder`), and names of Secrets: `_KEYS` is mounted,
    `_SECRETS` become variables.

    Returns:
        Keyword arguments of `KubernetesStageOperator`; the pod runs as an ordinary user without any
        privilege, sees images, models and keys read-only, and can write only to the runs and to a bounded
        `/tmp` in memory.

    Raises:
        ValueError: a variable is not what it must be; the message says what is allowed.
    """
    user, group = (int(part) for part in _matching("USER", "10001:10001", USER, "10001:10001").split(":"))
    mounts, volumes = _volumes()
    return {
        "name": "imagebatch-{{ ti.task_id }}",
        "namespace": namespace(),
        "image": _env("IMAGE", "imagebatch:latest"),
        "image_pull_policy": _policy(),
        "base_container_name": PROGRAM,
        "pod_template_file": _env("POD_TEMPLATE") or None,
        "container_resources": _resources(),
        "security_context": k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=user,
            run_as_group=group,
            fs_group=group,
            fs_group_change_policy="OnRootMismatch",  # a million files are not walked at each start
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        "container_security_context": k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            privileged=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        "automount_service_account_token": False,  # a stage asks the model server, never the cluster
        "volumes": volumes,
        "volume_mounts": mounts,
        "env_from": [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=name)) for name in _secrets()],
        "startup_timeout_seconds": int(_matching("STARTUP", "600", re.compile("[1-9][0-9]{0,5}"), "600")),
        "annotations": labels(),
    }


def namespace() -> str:
    """Name the namespace of the stages: `IMAGEBATCH_KUBERNETES_NAMESPACE`, else that of Airflow's own pod."""
    own = OWN_NAMESPACE.read_text("utf-8").strip() if OWN_NAMESPACE.exists() else "default"
    return _matching("NAMESPACE", own, OBJECT, "imagebatch")


def label_values(whole: Mapping[str, str]) -> dict[str, str]:
    """Derive labels from texts of any length and any characters.

    Args:
        whole: what the labels stand for; the pod has it as annotations.

    Returns:
        At most 63 of the characters that Kubernetes allows: the text itself, or, where that does not fit,
        what fits of it and a digest of the whole, so that two texts have two labels. A task that is
        not mapped has no index.
    """
    return {
        name: text if LABEL.fullmatch(text) else _shortened(text)
        for name, text in whole.items()
        if not (name == MAP_INDEX and text == "-1")
    }


def literal(text: str) -> str:
    """Write a text so that Kubernetes hands it on as it is: it would put variables in place of `$(NAME)`.

    An input's name is anybody's to choose, and the variables of a pod hold secrets.
    """
    return text.replace("$", "$$")


def _shortened(text: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:READABLE].rstrip("._-")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return f"{readable}-{digest}" if readable else digest


def _volumes() -> tuple[list[k8s.V1VolumeMount], list[k8s.V1Volume]]:
    size = _matching("TMP", "512Mi", QUANTITY, "512Mi")
    mounts = [k8s.V1VolumeMount(name="tmp", mount_path=TMP)]
    volumes = [
        k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=size))
    ]
    for place, target in (("INPUTS", INPUTS), ("MODELS", MODELS), ("RUNS", RUNS)):
        claim, _, folder = _env(place).partition("/")
        if not claim:
            continue
        _check(place, claim, OBJECT, "imagebatch-runs")
        if folder:
            _check(place, folder, FOLDER, "imagebatch-data/runs")
        read_only = place != "RUNS"
        name = place.lower()
        mounts.append(
            k8s.V1VolumeMount(name=name, mount_path=target, read_only=read_only, sub_path=folder or None)
        )
        source = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=claim, read_only=read_only)
        volumes.append(k8s.V1Volume(name=name, persistent_volume_claim=source))
    if not _env("RUNS") and "://" not in os.environ.get("IMAGEBATCH_RUNS_URI", RUNS):
        raise ValueError(
            "IMAGEBATCH_KUBERNETES_RUNS is not set: name the claim that keeps the runs, or set"
            " IMAGEBATCH_RUNS_URI to a bucket, such as s3://bucket/runs"
        )
    if keys := _matching("KEYS", "", OBJECT, "imagebatch-keys"):
        mounts.append(k8s.V1VolumeMount(name="keys", mount_path=KEYS, read_only=True))
        source = k8s.V1SecretVolumeSource(secret_name=keys, default_mode=0o440)
        volumes.append(k8s.V1Volume(name="keys", secret=source))
    return mounts, volumes


def _resources() -> k8s.V1ResourceRequirements:
    cpus = _matching("CPUS", "2", QUANTITY, "2")
    memory = _matching("MEMORY", "2Gi", QUANTITY, "2Gi")
    requests = {
        "cpu": _matching("CPU_REQUEST", cpus, QUANTITY, "500m"),
        "memory": _matching("MEMORY_REQUEST", memory, QUANTITY, "2Gi"),
    }
    return k8s.V1ResourceRequirements(requests=requests, limits={"cpu": cpus, "memory": memory})


def _secrets() -> list[str]:
    names = [name.strip() for name in _env("SECRETS").split(",") if name.strip()]
    for name in names:
        _check("SECRETS", name, OBJECT, "imagebatch-stores,imagebatch-api")
    return names


def _policy() -> str:
    found = _env("PULL_POLICY", "IfNotPresent")
    if found not in POLICIES:
        raise ValueError(
            f"IMAGEBATCH_KUBERNETES_PULL_POLICY is {found!r}: set it to one of {', '.join(POLICIES)}"
        )
    return found


def _env(name: str, default: str = "") -> str:
    return os.environ.get(f"IMAGEBATCH_KUBERNETES_{name}") or default


def _matching(name: str, default: str, pattern: re.Pattern[str], example: str) -> str:
    found = _env(name, default)
    if found:
        _check(name, found, pattern, example)
    return found


def _check(name: str, text: str, pattern: re.Pattern[str], example: str) -> None:
    if not pattern.fullmatch(text) or ".." in text:
        raise ValueError(f"IMAGEBATCH_KUBERNETES_{name} has {text!r}: it must be like {example}")
