"""A stage as one pod of the pipeline image."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import PodLaunchFailedException
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.container import get_container_status
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodLaunchTimeoutException
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import V1Pod
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from imagebatch_dags.lineage import StageLineage
from imagebatch_dags.outcome import last_result, raise_for_exit
from imagebatch_dags.places import ATTEMPT, PROGRAM
from imagebatch_dags.pod import label_values, literal
from imagebatch_dags.pods import GONE, GRACE_SECONDS, SPEC, cluster, end_pod, worth_waiting_for
from imagebatch_dags.process_operator import announce
from imagebatch_dags.stage_command import StageCommand

KEPT = 20  # last lines: the result or the complaint is among them
OUT_OF_MEMORY = 137


class KubernetesStageOperator(StageCommand, StageLineage, KubernetesPodOperator):
    """Run one `imagebatch` command in a pod that is gone when the task ends.

    The client, the merging with a template, the start and the logs are KubernetesPodOperator's. Its own way
    to go on with a pod after a restart (`durable`) is off: it takes any pod of the task for the right
    one, fails where it finds two, and makes a pod that has succeeded again. Here a retry waits for the
    newest pod of its task, if that was asked for in the same words.

    Args:
        command: arguments of `imagebatch`, which is on the image's PATH; templated. An empty one is left out.
        shard: shard number to add as `--shard`, for mapped tasks.
        environment: variables of the container; templated.
        **kwargs: KubernetesPodOperator's; `stage_pod()` gives the ones that every stage shares.
    """

    template_fields: Sequence[str] = (*KubernetesPodOperator.template_fields, "command", "environment")
    template_ext: Sequence[str] = ()  # an argument that ends in .sh is an argument, not a template file

    def __init__(
        self,
        *,
        command: list[str],
        environment: dict[str, str] | None = None,
        shard: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            durable=False,
            deferrable=False,
            container_name_log_prefix_enabled=False,
            log_events_on_failure=True,
            log_pod_spec_on_failure=False,
            startup_check_interval_seconds=1,
            termination_grace_period=GRACE_SECONDS,
            termination_message_policy="FallbackToLogsOnError",
            **kwargs,
        )
        self.command = command
        self.environment = environment or {}
        self.shard = shard
        self.do_xcom_push = True  # to Airflow: keep the result. To the provider it means a sidecar: see below

    @cached_property
    def hook(self) -> KubernetesHook:
        """The connection to the cluster."""
        return cluster(self.config_file)

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Run the pod to its end, or wait for that of an earlier attempt, then delete it.

        Only who knows that a pod has ended, or wants it to end, deletes it: an attempt that loses sight of
        it, because the cluster's API does not answer, leaves it to the next one.

        Returns:
            The JSON object of the stage's last line.

        Raises:
            AirflowException: and its kin, by exit code (`outcome.raise_for_exit`).
        """
        self.name = self._set_name(self.name)
        try:
            self.pod_request_obj = self.build_pod_request_obj(context)
            self.pod = self.pod_request_obj  # before it exists: on_kill() finds it at every moment
            self.pod = self.get_or_create_pod(self.pod_request_obj, context)
            ended = self._follow(self.pod)
            lines = self._last_lines(ended)
        except ConfigException as error:
            raise AirflowFailException(
                f"no cluster: run Airflow's workers in it, or set KUBECONFIG ({error})"
            ) from error
        except ApiException as error:
            if error.status == GONE:
                raise AirflowException("the pod was deleted while it ran") from error
            raise AirflowException(f"the cluster refuses: {error.reason}: {_said(error)}") from error
        self._delete()
        self._judge(ended, lines)
        self.result = last_result(lines)
        if self.result is None:
            # The stage has succeeded; the next attempt finds its work done, and its last line again.
            raise AirflowException(f"{self.stage_arguments[0]}: exit code 0, and no result in the pod's log")
        announce(self.outlets, context, self.result)
        return self.result

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> V1Pod:
        """Describe the pod: the template's, with everything in it that confines a stage.

        Returns:
            The pod, with labels that were derived from its annotations, and a digest of what it asks for.

        Raises:
            AirflowFailException: the template is not there, or no pod.
        """
        self.cmds = [PROGRAM]
        self.arguments = [literal(part) for part in self.stage_arguments]
        self.env_vars = {name: literal(value) for name, value in self.environment.items()}
        if self.pod_template_file:
            _check_template(Path(self.pod_template_file))
        self.do_xcom_push = False
        try:
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
        finally:
            self.do_xcom_push = True
        pod.spec.enable_service_links = False  # a Service's name must not become one of our variables
        pod.metadata.labels |= {"app.kubernetes.io/name": PROGRAM, "app.kubernetes.io/component": "stage"}
        pod.metadata.labels |= label_values(self.annotations)
        if not dry_run:
            spec = self.client.api_client.sanitize_for_serialization(pod.spec)
            text = json.dumps(spec, sort_keys=True)
            pod.metadata.annotations[SPEC] = hashlib.sha256(text.encode()).hexdigest()
        return pod

    def get_or_create_pod(self, pod_request_obj: V1Pod, context: Context) -> V1Pod:
        """Make the pod, unless that of an earlier attempt is worth waiting for; end the other ones."""
        del context  # annotations name the task
        namespace, annotations = pod_request_obj.metadata.namespace, pod_request_obj.metadata.annotations
        kept, others = worth_waiting_for(self.client, namespace, annotations)
        for each in others:
            end_pod(self.client, namespace, each, f"attempt {annotations[ATTEMPT]} takes over")
        if kept is not None:
            self.log.info("Waiting for pod %s, which an earlier attempt has started", kept.metadata.name)
            return kept
        self.log.info("Running %s in pod %s", self.stage_arguments, pod_request_obj.metadata.name)
        return self.pod_manager.create_pod(pod=pod_request_obj)

    def _follow(self, pod: V1Pod) -> V1Pod:
        try:
            self.await_pod_start(pod=pod)
        except (PodLaunchFailedException, PodLaunchTimeoutException):
            self._delete()
            raise
        self.await_pod_completion(pod=pod)  # hands its lines to the log
        return self.pod_manager.await_pod_completion(pod, container_name=self.base_container_name)

    def _last_lines(self, pod: V1Pod) -> list[str]:
        try:
            answer = self.client.read_namespaced_pod_log(
                pod.metadata.name,
                pod.metadata.namespace,
                container=self.base_container_name,
                tail_lines=KEPT,
                _preload_content=False,
            )
        except (ApiException, HTTPError) as error:  # its node is gone, say
            self.log.warning("The log of pod %s cannot be read: %s", pod.metadata.name, error)
            return []
        text: str = answer.data.decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def _judge(self, pod: V1Pod, lines: list[str]) -> None:
        status = get_container_status(pod, self.base_container_name)
        ended = status.state.terminated if status and status.state else None
        if ended is None:  # evicted before it began, or its node was lost
            reason = f"{pod.status.reason or pod.status.phase}: {pod.status.message or 'no reason is told'}"
            raise AirflowException(
                f"{self.stage_arguments[0]}: the pod ended without an exit code ({reason})"
            )
        code = OUT_OF_MEMORY if ended.reason == "OOMKilled" else ended.exit_code
        told = (ended.message or "").strip().splitlines()
        raise_for_exit(self.stage_arguments[0], code, next(iter([*lines[-1:], *told[-1:]]), ""))

    def _delete(self) -> None:
        if self.pod is None:
            return
        try:
            self.pod_manager.delete_pod(self.pod)
        except (ApiException, HTTPError) as error:
            self.log.warning("Pod %s is not deleted: %s", self.pod.metadata.name, error)


def _check_template(path: Path) -> None:
    # The provider warns of a file that is missing, and makes a pod without it: on any node, as any account.
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AirflowFailException(f"{path} is no pod template: {error}") from error
    spec = found.get("spec") if isinstance(found, dict) else None
    if not isinstance(spec, dict) or not isinstance(spec.get("containers"), list):
        raise AirflowFailException(f"{path} is no pod template: it needs spec.containers, if only []")


def _said(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])[:1000]
    except (KeyError, TypeError, ValueError):
        return str(error.body)[:1000]
