"""Pods of stages that are there: found by their labels, told apart by their annotations, deleted."""

import logging
from collections.abc import Mapping

from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from kubernetes.client import CoreV1Api, V1Pod
from kubernetes.client.exceptions import ApiException

from imagebatch_dags.orphans import StageContainer, earlier_attempts, read
from imagebatch_dags.places import INSTALLATION
from imagebatch_dags.pod import label_values

log = logging.getLogger(__name__)

# Seconds between the polite signal and SIGKILL. An attempt may die at any moment and lose nothing.
GRACE_SECONDS = 10
GONE = 404
# Of the pod as it was asked for: a pod with another digest does something else, or with something else.
SPEC = "imagebatch.spec"


def cluster(config_file: str | None = None) -> KubernetesHook:
    """Connect to the cluster that the stages run in.

    Args:
        config_file: of kubectl's kind; None: the worker's own cluster, or that of `KUBECONFIG`.

    Returns:
        The hook, which knows no connection of Airflow's: no secret of a cluster is in its database.
    """
    return KubernetesHook(conn_id=None, kubernetes_conn_id=None, config_file=config_file)


def stage_pods(client: CoreV1Api, namespace: str, installation: str) -> list[tuple[StageContainer, V1Pod]]:
    """List the pods of an installation, running or not.

    Args:
        client: of the cluster.
        namespace: where the stages run.
        installation: its name, an annotation of all its pods.

    Returns:
        Those whose annotations are whole and that nobody is deleting.
    """
    label = label_values({INSTALLATION: installation})[INSTALLATION]
    listed = client.list_namespaced_pod(namespace, label_selector=f"{INSTALLATION}={label}").items
    return [
        (read_as, pod)
        for pod in listed
        if (pod.metadata.annotations or {}).get(INSTALLATION) == installation
        and not pod.metadata.deletion_timestamp
        and (read_as := _read(pod))
    ]


def worth_waiting_for(
    client: CoreV1Api, namespace: str, annotations: Mapping[str, str]
) -> tuple[V1Pod | None, list[StageContainer]]:
    """Find the pod that a retry may wait for, and those that it must end.

    Args:
        client: of the cluster.
        namespace: where the stages run.
        annotations: of the pod that is about to be made.

    Returns:
        The newest pod of the same task, if it was asked for in the same words and has not failed; and the
        others of the same task: beside a later attempt an earlier one cannot finish.
    """
    found = stage_pods(client, namespace, annotations[INSTALLATION])
    earlier = earlier_attempts((each for each, _ in found), annotations)
    if not earlier:
        return None, []
    newest = next(pod for each, pod in found if each == earlier[-1])
    same = (newest.metadata.annotations or {}).get(SPEC) == annotations[SPEC]
    if same and newest.status.phase in {"Pending", "Running", "Succeeded"}:
        return newest, earlier[:-1]
    return None, earlier


def end_pod(client: CoreV1Api, namespace: str, pod: StageContainer, reason: str) -> bool:
    """Delete one pod.

    Args:
        client: of the cluster.
        namespace: where it runs.
        pod: which.
        reason: for the log.

    Returns:
        Whether it was there; it is gone when its grace period has passed.
    """
    try:
        client.delete_namespaced_pod(pod.id, namespace, grace_period_seconds=GRACE_SECONDS)
    except ApiException as error:
        if error.status != GONE:
            log.warning("Pod %s is not deleted: %s", pod, error.reason)
        return False
    log.warning("Deleted pod %s: %s", pod, reason)
    return True


def _read(pod: V1Pod) -> StageContainer | None:
    made = pod.metadata.creation_timestamp
    return read(
        pod.metadata.annotations or {},
        pod.metadata.name,
        pod.status.phase,
        int(made.timestamp()) if made else 0,
    )
