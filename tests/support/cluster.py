"""As much of a Kubernetes cluster as one pod's life takes, on loopback: an API and a kubelet of processes.

The API takes pods as strictly as a real one (schemas of Kubernetes, labels, references), lists, reads,
follows logs and deletes. The kubelet runs a container's command as a process of this machine: variables and
Secrets are put in place as Kubernetes does it, phases and exit codes are told in its words. No isolation:
neither user, limits nor mounts are real here.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

KUBERNETES = "1.32"
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
PODS = re.compile(r"/api/v1/namespaces/(?P<namespace>[a-z0-9-]+)/pods(/(?P<name>[a-z0-9.-]+))?(?P<log>/log)?")
EVENTS = re.compile(r"/api/v1/namespaces/[a-z0-9-]+/events")
LONGEST_MESSAGE = 2048  # bytes of a termination message that come from the log
STOP_SIGNAL = signal.SIGINT  # the image's (pipeline_image/Dockerfile)


class RefusedError(Exception):
    """The API's answer is an error.

    Args:
        code: of HTTP.
        reason: in Kubernetes' words.
        message: what is wrong.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


@dataclass
class Pod:
    """One pod and, once it runs, its process.

    Attributes:
        manifest: as the API gives it out.
        lines: of its log, with the time of each.
        process: of its container.
    """

    manifest: dict[str, Any]
    lines: list[tuple[str, bytes]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.manifest["status"]["phase"] in {"Succeeded", "Failed"}


class Cluster:
    """A cluster of one node.

    Args:
        images: folder of programs of each image, by the image's name.
        secrets: Secrets by name, each with its variables.

    Attributes:
        address: of the API.
        pods: by name; those that were deleted are not among them.
        made: names of all pods that there ever were, in order.
        asked: every kind of call so far, as a Role names it: resource and verb.
        away: while set, the API answers every call with 503.
    """

    def __init__(self, images: Mapping[str, Path], secrets: Mapping[str, Mapping[str, str]]) -> None:
        self.pods: dict[str, Pod] = {}
        self.made: list[str] = []
        self.asked: set[tuple[str, str]] = set()
        self.away = threading.Event()
        self._images, self._secrets = images, secrets
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._server = _Server(self)
        self._serving = threading.Thread(target=self._server.serve_forever)
        self._serving.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End all pods, then the API."""
        for pod in list(self.pods.values()):
            self.delete(pod.name, 0)
        for thread in self._threads:
            thread.join(30)
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()

    def kubeconfig(self, path: Path) -> Path:
        """Write the file by which a client finds this cluster."""
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": self.address}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "test"}}],
            "current-context": "here",
        }
        path.write_text(json.dumps(told), "utf-8")
        return path

    def wait(self, name: str, *, seconds: float = 30) -> Pod:
        """Wait until a pod has ended.

        Raises:
            TimeoutError: it has not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.pods[name].ended, seconds):
                raise TimeoutError(f"{name} is {self.pods[name].manifest['status']['phase']}")
            return self.pods[name]

    def create(self, namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Take a pod, or refuse it, and start it.

        Raises:
            RefusedError: with what is wrong.
        """
        _check(manifest)
        metadata = manifest["metadata"]
        with self._changed:
            if metadata["name"] in self.pods:
                raise RefusedError(409, "AlreadyExists", f'pods "{metadata["name"]}" already exists')
            metadata |= {"uid": str(uuid.uuid4()), "namespace": namespace, "creationTimestamp": _now()}
            manifest["status"] = {"phase": "Pending"}
            pod = self.pods[metadata["name"]] = Pod(manifest)
            self.made.append(pod.name)
        thread = threading.Thread(target=self._run, args=(pod,))
        self._threads.append(thread)
        thread.start()
        return manifest

    def read(self, name: str) -> Pod:
        """Find a pod.

        Raises:
            RefusedError: there is none.
        """
        if name not in self.pods:
            raise RefusedError(404, "NotFound", f'pods "{name}" not found')
        return self.pods[name]

    def delete(self, name: str, grace: float) -> dict[str, Any]:
        """Stop a pod; it is gone when its process is."""
        pod = self.read(name)
        with self._changed:
            first = "deletionTimestamp" not in pod.manifest["metadata"]
            pod.manifest["metadata"]["deletionTimestamp"] = _now()
        if first:
            thread = threading.Thread(target=self._stop, args=(pod, grace))
            self._threads.append(thread)
            thread.start()
        return pod.manifest

    def kill(self, name: str, reason: str = "Error") -> None:
        """Kill a pod's process, as the kernel does, with the reason that the kubelet tells."""
        pod = self.pods[name]
        pod.manifest["metadata"].setdefault("annotations", {})["killed"] = reason
        assert pod.process
        os.killpg(pod.process.pid, signal.SIGKILL)

    def log(self, pod: Pod, begin: int, *, follow: bool) -> Iterator[tuple[str, bytes]]:
        """Give the lines of a pod's log from one on; where followed, to its end."""
        while True:
            with self._changed:
                if follow:
                    known = begin
                    self._changed.wait_for(lambda: len(pod.lines) > known or pod.ended, 30)  # noqa: B023 - it is called here
                fresh, ended = pod.lines[begin:], pod.ended
            yield from fresh
            begin += len(fresh)
            if not follow or (ended and not fresh):
                return

    def _run(self, pod: Pod) -> None:
        spec = pod.manifest["spec"]
        (container,) = spec["containers"]
        programs = self._images.get(container["image"])
        if programs is None:
            waiting = {"reason": "ErrImagePull", "message": f"{container['image']}: not found"}
            self._tell(pod, "Pending", container, {"waiting": waiting})
            return
        environment = self._environment(container) | {"PATH": f"{programs}:{os.environ['PATH']}"}
        argv = [_expanded(part, environment) for part in [*container["command"], *container.get("args", [])]]
        with self._changed:
            if "deletionTimestamp" in pod.manifest["metadata"]:
                return
            pod.process = subprocess.Popen(
                [programs / argv[0], *argv[1:]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._tell(pod, "Running", container, {"running": {"startedAt": _now()}})
        assert pod.process.stdout
        with pod.process.stdout as stream:
            for line in stream:
                with self._changed:
                    pod.lines.append((datetime.now(UTC).isoformat().replace("+00:00", "000Z"), line))
                    self._changed.notify_all()
        code = pod.process.wait()
        code = code if code >= 0 else 128 - code
        killed = pod.manifest["metadata"].get("annotations", {}).get("killed")
        ended = {
            "exitCode": code,
            "reason": killed or ("Error" if code else "Completed"),
            "finishedAt": _now(),
        }
        if code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            tail = b"".join(line for _, line in pod.lines)[-LONGEST_MESSAGE:]
            ended["message"] = tail.decode(errors="replace")
        self._tell(pod, "Failed" if code else "Succeeded", container, {"terminated": ended})

    def _tell(self, pod: Pod, phase: str, container: Mapping[str, Any], state: dict[str, Any]) -> None:
        status = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": "running" in state,
            "restartCount": 0,
            "state": state,
        }
        with self._changed:
            pod.manifest["status"] = {
                "phase": phase,
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [status],
            }
            self._changed.notify_all()

    def _stop(self, pod: Pod, grace: float) -> None:
        process = pod.process
        if process is not None and process.poll() is None:
            _signal(process.pid, STOP_SIGNAL)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                _signal(process.pid, signal.SIGKILL)
                process.wait()
        with self._changed:
            self.pods.pop(pod.name, None)
            self._changed.notify_all()

    def _environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self._secrets[source["secretRef"]["name"]]
        for each in container.get("env", []):
            found[each["name"]] = _expanded(each.get("value", ""), found)
        return found


@contextmanager
def cluster(
    images: Mapping[str, Path], secrets: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[Cluster]:
    """Start a cluster, and leave nothing of it."""
    here = Cluster(images, secrets or {})
    try:
        yield here
    finally:
        here.close()


class _Server(ThreadingHTTPServer):
    """The API's server, which knows whose it is."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.cluster = cluster


class _Api(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_DELETE(self) -> None:
        self._answer(self._remove)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def _answer(self, act: Callable[[], None]) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(size)) if size else {}
        split = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(split.query).items()}
        self.server.cluster.asked.add(_call(self.command, split.path))
        try:
            self._route(split.path, act)
        except RefusedError as error:
            told = {"kind": "Status", "code": error.code, "reason": error.reason, "message": str(error)}
            self._json(error.code, told)

    def _route(self, path: str, act: Callable[[], None]) -> None:
        if self.server.cluster.away.is_set():
            raise RefusedError(503, "ServiceUnavailable", "the API is away")
        if EVENTS.fullmatch(path):
            self._json(200, {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": []})
            return
        found = PODS.fullmatch(path)
        if not found:
            raise RefusedError(404, "NotFound", f"no {self.path} here")
        self.place = found
        act()

    def _get(self) -> None:
        if self.place["log"]:
            self._log(self.server.cluster.read(self.place["name"]))
        elif self.place["name"]:
            self._json(200, self.server.cluster.read(self.place["name"]).manifest)
        else:
            chosen = self.query.get("labelSelector", "")
            found = [
                pod.manifest for pod in self.server.cluster.pods.values() if _matches(pod.manifest, chosen)
            ]
            self._json(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found})

    def _post(self) -> None:
        self._json(201, self.server.cluster.create(self.place["namespace"], self.body))

    def _remove(self) -> None:
        pod = self.server.cluster.read(self.place["name"])
        own = pod.manifest["spec"].get("terminationGracePeriodSeconds", 30)
        asked = self.query.get("gracePeriodSeconds", self.body.get("gracePeriodSeconds"))
        self._json(200, self.server.cluster.delete(pod.name, float(own if asked is None else asked)))

    def _log(self, pod: Pod) -> None:
        if pod.process is None:
            raise RefusedError(400, "BadRequest", f"container in pod {pod.name} is waiting to start")
        follow = self.query.get("follow", "").lower() == "true"
        stamps = self.query.get("timestamps", "").lower() == "true"
        begin = max(0, len(pod.lines) - int(self.query["tailLines"])) if "tailLines" in self.query else 0
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for stamp, line in self.server.cluster.log(pod, begin, follow=follow):
            data = f"{stamp} ".encode() * stamps + line
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, code: int, told: dict[str, Any]) -> None:
        data = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _call(method: str, path: str) -> tuple[str, str]:
    """Name a call as a Role does."""
    found = PODS.fullmatch(path)
    if not found:
        return "events" if EVENTS.fullmatch(path) else path, "list"
    verbs = {"GET": "get" if found["name"] else "list", "POST": "create"}
    return "pods/log" if found["log"] else "pods", verbs.get(method, method.lower())


def _check(manifest: dict[str, Any]) -> None:
    """Refuse what a real API server refuses, with its code."""
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise RefusedError(422, "Invalid", error.message) from error
    metadata, spec = manifest["metadata"], manifest["spec"]
    if not NAME.fullmatch(metadata["name"]):
        raise RefusedError(422, "Invalid", f"metadata.name: {metadata['name']}")
    for name, value in metadata.get("labels", {}).items():
        if not LABEL.fullmatch(value):
            raise RefusedError(422, "Invalid", f"metadata.labels: {name}: {value!r}")
    names = [volume["name"] for volume in spec.get("volumes", [])]
    if len(set(names)) != len(names):
        raise RefusedError(422, "Invalid", f"spec.volumes: {names} has one twice")
    for container in spec["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in names:
                raise RefusedError(422, "Invalid", f"volumeMounts: no volume {mount['name']}")


def _matches(manifest: Mapping[str, Any], selector: str) -> bool:
    labels = manifest["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        if term.startswith("!"):
            if term[1:] in labels:
                return False
        elif "!=" in term:
            name, _, value = term.partition("!=")
            if labels.get(name) == value:
                return False
        else:
            name, _, value = term.partition("=")
            if labels.get(name) != value:
                return False
    return True


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in place of `$(NAME)` as Kubernetes does: `$$` is `$`, an unknown name is itself."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", value, text)


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main(argv: list[str]) -> None:
    """Serve until this process is ended; say on standard error which pods were made, and how many are there.

    Args:
        argv: where to write the kubeconfig, and `IMAGE=FOLDER` for each image.
    """
    here = Cluster({name: Path(folder) for name, folder in (each.split("=", 1) for each in argv[1:])}, {})
    here.kubeconfig(Path(argv[0]))
    told = there = 0
    while True:
        time.sleep(0.2)
        for name in here.made[told:]:
            sys.stderr.write(f"made {name}\n")
            told += 1
        if there != len(here.pods):
            there = len(here.pods)
            sys.stderr.write(f"there are {there}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
