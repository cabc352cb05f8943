"""The serving container's main process: TorchServe on the addresses that the container has, and its keys.

TorchServe keeps three keys in one file. Whoever holds the management key decides what code runs, so
clients get a file of their own with nothing but the inference key, which this process renews before it ends.

`imagebatch_serve.py` serves; `imagebatch_serve.py health` exits 0 when every archive has all its workers.
`imagebatch_serve.py serve` serves behind a platform that lets nobody else in (SageMaker, Vertex AI): the
routes that the platform asks, without keys, on all addresses (imagebatch_hosted). Standard library only.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from imagebatch_hosted import Front

TEMPLATE = Path(__file__).with_name("config.properties")
PORTS = {"inference": 8080, "management": 8081, "metrics": 8082}
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # as in allowed_urls of the template
RENEWED_IN = 4  # the last quarter of the inference key's life is for getting a new one
PAUSE = 1.0  # seconds between two looks at the keys
GRACE = 15.0  # seconds for TorchServe to end by itself; the engine kills after 30
# What `serve` takes for granted where the environment says nothing: SageMaker unpacks model.tar.gz there, and
# lets other users write to nothing but /tmp.
HOSTED = {
    "IMAGEBATCH_MODEL_STORE": "/opt/ml/model",
    "IMAGEBATCH_INFERENCE_HOST": "0.0.0.0",  # noqa: S104 - the platform asks from outside the container
    "IMAGEBATCH_SERVER_FOLDER": "/tmp",  # noqa: S108 - the container's own
    "IMAGEBATCH_CLIENT_KEYS": "/tmp/keys",  # noqa: S108 - the container's own
}
BEHIND = 8083  # TorchServe's inference API where another process answers the platform
PORT_VARIABLES = ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT")  # Vertex AI's and SageMaker's
CONFIGURATION = 78  # exit code, docs/reference/protocol.md


def main(arguments: list[str]) -> int:
    """Serve, or ask the server that runs in this container for its health.

    Args:
        arguments: none, `health` or `serve`.

    Returns:
        Exit code: TorchServe's; for `health` 0 or 1.
    """
    hosted = arguments == ["serve"]
    if hosted:
        os.environ.update({name: value for name, value in HOSTED.items() if not os.environ.get(name)})
        Path(os.environ["IMAGEBATCH_CLIENT_KEYS"]).mkdir(parents=True, exist_ok=True)
    folder = Path(os.environ.get("IMAGEBATCH_SERVER_FOLDER", "/srv/server"))
    store = Path(os.environ.get("IMAGEBATCH_MODEL_STORE", "/srv/model_store"))
    if arguments == ["health"]:
        reason = unhealthy(folder / "key_file.json", store)
        print(reason or "healthy")  # noqa: T201 - the engine keeps it with the container's health
        return 1 if reason else 0
    clients = Path(os.environ.get("IMAGEBATCH_CLIENT_KEYS", "/srv/keys")) / "key_file.json"
    found = archives(store)
    for text in [*found.copies, *found.refused]:
        print(f"imagebatch_serve: {text}", file=sys.stderr)  # noqa: T201 - into the container's log
    try:
        templates = [TEMPLATE, *map(Path, filter(None, [os.environ.get("IMAGEBATCH_CONFIG")]))]
        lines = "\n".join(template.read_text(encoding="utf-8") for template in templates)
        config = configuration(lines, os.environ, store)
        if hosted:
            behind_a_platform(config, os.environ, folder / "key_file.json").start()
        path = folder / "config.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
        return serve(path, folder / "key_file.json", clients)
    except OSError as error:
        print(f"imagebatch_serve: {error}", file=sys.stderr)  # noqa: T201 - the one line that says what to do
        return CONFIGURATION


def configuration(template: str, environment: Mapping[str, str], store: Path) -> dict[str, str]:
    """Fill in what `config.properties` leaves to the site.

    Addresses come from the environment alone: a configuration that lies beside the models
    (`IMAGEBATCH_CONFIG`, as in KServe's storage) opens no API to another network.

    Args:
        template: text of `config.properties`; of a key that stands twice the last line holds.
        environment: `IMAGEBATCH_{INFERENCE,MANAGEMENT,METRICS}_HOST`: name or address to listen on, default
            loopback. In a container that has several networks, a name that only one of them knows keeps an
            API off the others. `IMAGEBATCH_WORKERS`: per model, default one per core.
        store: folder of the archives.

    Returns:
        All settings.

    Raises:
        OSError: a name cannot be resolved.
    """
    lines = [line.strip() for line in template.splitlines()]
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    for api, port in PORTS.items():
        name = environment.get(f"IMAGEBATCH_{api.upper()}_HOST") or "127.0.0.1"
        try:
            address = socket.gethostbyname(name)
        except OSError as error:
            raise OSError(f"IMAGEBATCH_{api.upper()}_HOST={name} is not known here: {error}") from error
        settings[f"{api}_address"] = f"http://{address}:{port}"
    return settings | {
        "model_store": str(store),
        "load_models": ",".join(load_order(store, archives(store).served)),
        "allowed_urls": settings["allowed_urls"].replace(settings["model_store"], literal(store)),
        "default_workers_per_model": environment.get("IMAGEBATCH_WORKERS")
        or str(len(os.sched_getaffinity(0))),
    }


def behind_a_platform(config: dict[str, str], environment: Mapping[str, str], private: Path) -> "Front":
    """Make what the platform asks, and move TorchServe's inference API to loopback.

    Args:
        config: all settings; the inference address changes.
        environment: names of `PORT_VARIABLES` and of imagebatch_hosted.
        private: TorchServe's keys.

    Returns:
        The front, listening; it does not answer yet.

    Raises:
        OSError: no archive, or several: the platform names no model. Or the port cannot be had.
    """
    import imagebatch_hosted as hosted  # noqa: PLC0415 - tools/ imports this module by another path, for the rest of it

    served = archives(Path(config["model_store"])).served
    if len(served) != 1:
        raise OSError(f"{config['model_store']} holds {len(served)} archives that can be served, not one")
    host = config["inference_address"].removeprefix("http://").rpartition(":")[0]
    port = next(
        filter(str.isdecimal, map(environment.get, PORT_VARIABLES, ("", ""))), str(PORTS["inference"])
    )
    config["inference_address"] = f"http://127.0.0.1:{BEHIND}"
    ((model, _),) = served.values()
    behind = hosted.TorchServe(BEHIND, model, lambda: str(keys(private).get("inference", {}).get("key", "")))
    most = int(config["max_request_size"])
    return hosted.Front((host, int(port)), behind, hosted.routes(environment), most)


class Archives(NamedTuple):
    """What lies in a model store: served files by name, with model and version; why others are not served."""

    served: dict[str, tuple[str, str]]
    copies: list[str]
    refused: list[str]


def archives(store: Path) -> Archives:
    """Find what can be served from the start: TorchServe ends when two files hold one version of a model.

    Args:
        store: folder of the archives.

    Returns:
        Of copies, the one with the shortest name is served.
    """
    found, held = Archives({}, [], []), dict[tuple[str, str], str]()
    for path in sorted(store.glob("*.mar"), key=lambda each: (len(each.name), each.name)):
        try:
            with zipfile.ZipFile(path) as archive:
                model = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
            key = str(model["modelName"]), str(model.get("modelVersion", ""))
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            found.refused.append(f"{path.name} is not served: it is no archive ({error})")
            continue
        if not PLAIN.fullmatch(path.name):
            found.refused.append(f"{path.name} is not served: name it by letters, digits, `.`, `_` and `-`")
        elif key in held:
            found.copies.append(f"{path.name} is not served: {held[key]} holds {' '.join(key)}, too")
        else:
            held[key] = path.name
            found.served[path.name] = key
    return found


def load_order(store: Path, served: Mapping[str, tuple[str, str]]) -> list[str]:
    """Order archives so that of each model the default version is loaded first: TorchServe keeps that one.

    Args:
        store: folder of the archives. `<model>.serving.json`, which `imagebatch models set-default` writes,
            says which version is the default; without it, it is the one whose file name sorts first.
        served: from `archives`.
    """
    defaults = {model: default_version(store, model) for model in {model for model, _ in served.values()}}
    return sorted(served, key=lambda name: (served[name][1] != defaults[served[name][0]], name))


def default_version(store: Path, model: str) -> str:
    """Return the version that `<model>.serving.json` names; empty where none is, or it cannot be read."""
    path = store / f"{model}.serving.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["default"]["version"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = f"{path.name} is damaged ({error!r}): set the default version again"
        print(f"imagebatch_serve: {told}", file=sys.stderr)  # noqa: T201 - into the container's log
        return ""


def literal(path: Path) -> str:
    """Write a path as a pattern that matches it alone.

    Characters stand in brackets rather than behind a backslash, which a properties file takes away.
    """
    return re.sub(r"([^\w/-])", r"[\1]", str(path))


def serve(config: Path, private: Path, clients: Path) -> int:
    """Run TorchServe to its end, keeping the clients' file current.

    Args:
        config: its configuration.
        private: where TorchServe writes its keys; its folder is where it is started.
        clients: the file with the inference key.

    Returns:
        TorchServe's exit code.
    """
    private.unlink(missing_ok=True)  # keys of a server that is gone
    argv = ["torchserve", "--start", "--foreground", "--ncs", "--ts-config", str(config)]
    # Its logs go to standard output; the files that it insists on go where everything is forgotten.
    logs = dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION"), str(Path(tempfile.gettempdir(), "logs")))
    minutes = float(_settings(config)["token_expiration_min"])
    server = subprocess.Popen(argv, cwd=private.parent, env=os.environ | logs, process_group=0)  # noqa: S603 - no shell

    def stop(_: int, __: FrameType | None) -> None:
        signal_group(server, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        while server.poll() is None:
            publish(private, clients)
            renew(private, minutes * 60 / RENEWED_IN)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(PAUSE)
    finally:
        clients.unlink(missing_ok=True)
        end_group(server)
    return server.returncode


def signal_group(server: subprocess.Popen[bytes], number: int) -> None:
    """Signal TorchServe's front end (Java) and workers too: its launcher does not pass signals on."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, number)


def end_group(server: subprocess.Popen[bytes]) -> None:
    """Wait for the whole process group to end, and kill what does not."""
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(server.pid, 0)
            # As the container's first process this one inherits orphans: they end when they are waited for.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-server.pid, os.WNOHANG)
            time.sleep(0.1)
    signal_group(server, signal.SIGKILL)


def publish(private: Path, clients: Path) -> None:
    """Copy the inference key, and only that, to the clients' file; whole, and readable by this user only."""
    entry = keys(private).get("inference")
    if entry is None or keys(clients) == {"inference": entry}:
        return
    part = clients.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump({"inference": entry}, stream)
    part.replace(clients)


def renew(private: Path, seconds: float) -> None:
    """Ask for a new inference key when the current one ends soon; TorchServe puts it into its own file.

    Args:
        private: TorchServe's keys.
        seconds: of life left that are too few.
    """
    known = keys(private)
    ends = known.get("inference", {}).get("expiration time")
    if not ends or (datetime.fromisoformat(ends) - datetime.now(UTC)).total_seconds() > seconds:
        return
    with contextlib.suppress(OSError):  # tried again a second later
        _ask(private, "/token?type=inference", known["API"]["key"])


def unhealthy(private: Path, store: Path) -> str:
    """Tell why the server is not ready: every model of the store needs all its workers.

    Args:
        private: TorchServe's keys.
        store: folder of the archives; with none in it, an answering server is ready.

    Returns:
        The reason, or nothing.
    """
    try:
        # Where a site has switched keys off, there is none to wait for.
        settings = _settings(private.with_name("config.properties"))
        off = settings["disable_token_authorization"] == str(True).lower()
        key = "" if off else keys(private).get("management", {}).get("key")
        if key is None:
            return "no management key yet"
        models = json.loads(_ask(private, "/models?limit=100", key))["models"]
        found = archives(store)
        if found.refused:
            return found.refused[0]
        wanted = {name for name, _ in found.served.values()}
        if missing := wanted - {model["modelName"] for model in models}:
            return f"{len(missing)} of {len(wanted)} models are not loaded: {', '.join(sorted(missing))}"
        for model in models:
            (described,) = json.loads(_ask(private, f"/models/{model['modelName']}", key))
            states = [worker["status"] for worker in described["workers"]]
            if not states or set(states) != {"READY"}:
                return f"{model['modelName']}: {states.count('READY')} of {len(states)} workers are ready"
    except (OSError, ValueError, KeyError) as error:
        return f"management API: {error}"
    return ""


def keys(path: Path) -> dict[str, Any]:
    """Read a key file; empty while it is missing or half-written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _settings(config: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in config.read_text(encoding="utf-8").splitlines())


def _ask(private: Path, path: str, key: str) -> bytes:
    address = _settings(private.with_name("config.properties"))["management_address"]
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{address}{path}", headers=headers)  # noqa: S310 - http, from configuration()
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - http, from configuration()
        content: bytes = answer.read()
    return content


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
