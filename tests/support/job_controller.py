"""A `kubectl` whose cluster is this machine: Jobs are run as processes, one pod after the other.

As much of it as deploy/kubernetes/shards/run takes: `kustomize` is the real one's, `apply` runs what it is
given to its end before it returns, `get`, `logs` and `delete` tell of it. Retries, indexes and exit codes
are counted as the Job's policies say. Three variables: KUBECTL_REAL, the program for `kustomize`;
KUBECTL_STATE, a folder; KUBECTL_PROGRAMS, a folder with the programs of every image. Settings whose name is
in the environment as `KUBECTL_SET_NAME` replace those of ConfigMaps: addresses and folders of this machine.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

SETTING = "KUBECTL_SET_"


def main(argv: list[str]) -> int:
    """Do what one call of kubectl asks for.

    Args:
        argv: its arguments.

    Returns:
        Its exit code.
    """
    state = Path(os.environ["KUBECTL_STATE"])
    if argv[0] == "kustomize":
        return subprocess.run([os.environ["KUBECTL_REAL"], *argv], check=False).returncode
    match argv[2:] if argv[0] == "-n" else argv:
        case ["apply", "-l", selector, "-f", "-"]:
            for manifest in yaml.safe_load_all(sys.stdin.read()):
                if manifest and _selected(manifest, selector):
                    _apply(state, manifest)
        case ["get", "job", name, "-o", path]:
            return _get(state / f"Job-{name}.json", path)
        case ["get", "pods", "-l", label, *_]:
            _succeeded(state, label.partition("=")[2])
        case ["logs", pod]:
            sys.stdout.write(json.loads((state / f"Pod-{pod.removeprefix('pod/')}.json").read_text())["log"])
        case ["delete", "job", name, *_]:
            _delete(state, name)
        case words:
            raise SystemExit(f"no such call here: {words}")
    return 0


def _succeeded(state: Path, job: str) -> None:
    for pod in sorted(state.glob(f"Pod-{job}-*.json")):
        if json.loads(pod.read_text())["code"] == 0:
            sys.stdout.write(f"pod/{pod.stem.removeprefix('Pod-')}\n")


def _delete(state: Path, job: str) -> None:
    for path in [state / f"Job-{job}.json", *state.glob(f"Pod-{job}-*.json")]:
        path.unlink(missing_ok=True)


def _selected(manifest: dict[str, Any], selector: str) -> bool:
    labels = manifest["metadata"].get("labels", {})
    if selector.startswith("!"):
        return selector[1:] not in labels
    name, _, value = selector.partition("=")
    return bool(labels.get(name) == value)


def _apply(state: Path, manifest: dict[str, Any]) -> None:
    path = state / f"{manifest['kind']}-{manifest['metadata']['name']}.json"
    if manifest["kind"] == "Job":
        if path.exists():
            return  # it is there, done or not: nothing in it can be changed
        manifest["status"] = _run(state, manifest)
    path.write_text(json.dumps(manifest), "utf-8")


def _get(path: Path, wanted: str) -> int:
    if not path.exists():
        sys.stderr.write("Error from server (NotFound)\n")
        return 1
    (condition,) = json.loads(path.read_text())["status"]["conditions"]
    sys.stdout.write(condition["message" if wanted.endswith(".message}") else "type"])
    return 0


def _run(state: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Run a Job's pods to the Job's end, and tell how it ended."""
    spec = job["spec"]
    indexed = spec.get("completionMode") == "Indexed"
    tries = 1 + (spec["backoffLimitPerIndex"] if indexed else spec["backoffLimit"])
    for index in range(spec.get("completions", 1)):
        for attempt in range(tries):
            code = _pod(state, job, index, attempt)
            if code == 0 or _action(spec, code) in {"FailJob", "FailIndex"}:
                break
        if code:
            message = f"index {index} ended with exit code {code} after {attempt + 1} tries"
            return {"conditions": [{"type": "Failed", "status": "True", "message": message}]}
    return {"conditions": [{"type": "Complete", "status": "True", "message": ""}]}


def _action(spec: dict[str, Any], code: int) -> str:
    for rule in spec["podFailurePolicy"]["rules"]:
        if code in rule.get("onExitCodes", {}).get("values", []):
            return str(rule["action"])
    return "Count"


def _pod(state: Path, job: dict[str, Any], index: int, attempt: int) -> int:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {"JOB_COMPLETION_INDEX": str(index)}
    for source in container.get("envFrom", []):
        path = state / f"ConfigMap-{source['configMapRef']['name']}.json"
        variables |= json.loads(path.read_text())["data"]
    variables |= {each["name"]: each["value"] for each in container["env"]}
    variables |= {
        name.removeprefix(SETTING): value for name, value in os.environ.items() if name.startswith(SETTING)
    }
    command = [
        re.sub(r"\$\(([A-Z_]+)\)", lambda found: variables.get(found[1], found[0]), part)
        for part in container["command"]
    ]
    path = f"{os.environ['KUBECTL_PROGRAMS']}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        env={"PATH": path, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    told = {"code": done.returncode, "log": done.stdout}
    pod = state / f"Pod-{job['metadata']['name']}-{index:05d}-{attempt}.json"
    pod.write_text(json.dumps(told), "utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
