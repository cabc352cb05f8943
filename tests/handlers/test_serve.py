import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import imagebatch_serve as serve
import pytest

TEMPLATE = serve.TEMPLATE.read_text(encoding="utf-8")
MAIN = (
    "import sys, imagebatch_serve as s; from pathlib import Path; sys.exit(s.serve(*map(Path, sys.argv[1:])))"
)


def until(true: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it does not become true"
        time.sleep(0.1)


def ports(count: int) -> list[int]:
    """Find free ports of loopback."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Path]:
    """Serve an empty model store the way the container does, and give TorchServe's key file."""
    folder, store, clients = tmp_path / "server", tmp_path / "store", tmp_path / "clients"
    for each in (folder, store, clients):
        each.mkdir()
    config = serve.configuration(TEMPLATE, {}, store)
    chosen = ports(6)
    for api, port in zip(serve.PORTS, chosen, strict=False):
        config[f"{api}_address"] = f"http://127.0.0.1:{port}"
    names = ("grpc_inference_port", "grpc_management_port", "initial_worker_port")
    config |= dict(zip(names, map(str, chosen[3:]), strict=True))
    path = folder / "config.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, path, folder / "key_file.json", clients / "key_file.json"],
        env=os.environ | {"PATH": programs, "TMPDIR": str(tmp_path), "TEMP": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield folder / "key_file.json"
    process.send_signal(signal.SIGTERM)
    # Its end is part of what is proven: by itself, with nothing left, the clients' key withdrawn.
    process.wait(serve.GRACE + 10)
    assert not (clients / "key_file.json").exists()
    assert listening(chosen[:3]) == []


def archive(path: Path, name: str, version: str) -> None:
    """Write a file that TorchServe takes for an archive of a model, and can start nothing from."""
    manifest = {"model": {"modelName": name, "modelVersion": version}}
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))


def listening(numbers: list[int]) -> list[int]:
    """Pick the ports that somebody answers on."""
    found = []
    for number in numbers:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", number)) == 0:
                found.append(number)
    return found


def test_clients_get_the_inference_key_alone_and_every_new_one(private: Path) -> None:
    """The file that clients read holds one key, privately, and follows a renewal; the server is healthy when
    every archive of its store is served, and says what is missing.
    """
    clients = private.parent.parent / "clients" / "key_file.json"
    store = private.parent.parent / "store"
    until(clients.exists)
    assert set(json.loads(private.read_text())) == {"inference", "management", "API"}
    first = json.loads(clients.read_text())
    assert first == {"inference": json.loads(private.read_text())["inference"]}
    assert clients.stat().st_mode & 0o777 == 0o600
    until(lambda: serve.unhealthy(private, store) == "")

    serve.renew(private, 0)  # still young: nothing is asked for
    assert json.loads(private.read_text())["inference"] == first["inference"]
    serve.renew(private, float("inf"))
    until(lambda: json.loads(private.read_text())["inference"] != first["inference"])
    until(lambda: serve.keys(clients) == {"inference": json.loads(private.read_text())["inference"]})

    archive(store / "new.mar", "new", "1.0")
    assert serve.unhealthy(private, store) == "1 of 1 models are not loaded: new"
    (store / "half.mar").touch()
    assert serve.unhealthy(private, store).startswith("half.mar is not served: it is no archive")


def test_an_api_listens_where_its_name_leads(tmp_path: Path) -> None:
    """Each API gets the address of its own name; what is not named stays on loopback."""
    found = serve.configuration(TEMPLATE, {"IMAGEBATCH_INFERENCE_HOST": "0.0.0.0"}, tmp_path)  # noqa: S104 - not bound
    assert found["inference_address"] == "http://0.0.0.0:8080"
    assert found["management_address"] == "http://127.0.0.1:8081"
    assert found["metrics_address"] == "http://127.0.0.1:8082"
    assert found["model_store"] == str(tmp_path)
    assert re.fullmatch(found["allowed_urls"], f"file://{tmp_path}/solar-cells_1.0.mar")
    for other in (
        f"file://{tmp_path}/folder/a.mar",
        f"file://{tmp_path}/.hidden.mar",
        "file:///elsewhere/a.mar",
    ):
        assert not re.fullmatch(found["allowed_urls"], other), other
    assert found["enable_envvars_config"] == "false"


def test_a_store_with_special_characters_matches_itself_alone(tmp_path: Path) -> None:
    """A dot or plus of the store's own path is no pattern."""
    store = tmp_path / "store+1.0"
    allowed = serve.configuration(TEMPLATE, {}, store)["allowed_urls"]
    assert re.fullmatch(allowed, f"file://{store}/a.mar")
    assert not re.fullmatch(allowed, f"file://{tmp_path}/storee1x0/a.mar")


def test_of_two_copies_one_is_served(tmp_path: Path) -> None:
    """A copy that is left over, and what is no archive, is named and not handed to TorchServe."""
    for file, name, version in (
        ("m.mar", "m", "1.0"),
        ("a copy of m.mar", "m", "1.0"),
        ("m-old.mar", "m", "1.0"),
        ("m-2.mar", "m", "2.0"),
        ("other.mar", "other", "1.0"),
        ("b,c.mar", "b", "1.0"),
    ):
        archive(tmp_path / file, name, version)
    (tmp_path / "half.mar").write_bytes(b"PK")
    found = serve.archives(tmp_path)
    assert found.served == {"m.mar": ("m", "1.0"), "m-2.mar": ("m", "2.0"), "other.mar": ("other", "1.0")}
    assert found.copies == ["m-old.mar is not served: m.mar holds m 1.0, too"]
    assert [text.partition(" is not served: ")[0] for text in found.refused] == [
        "b,c.mar",
        "half.mar",
        "a copy of m.mar",
    ]
    assert serve.configuration(TEMPLATE, {}, tmp_path)["load_models"] == "m-2.mar,m.mar,other.mar"


def test_a_remembered_default_is_loaded_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TorchServe makes it the default; a memory that cannot be read is told, and serves nothing less."""
    for file, version in (("m.mar", "1.0"), ("m-1.1.mar", "1.1")):
        archive(tmp_path / file, "m", version)
    memory = tmp_path / "m.serving.json"
    loaded = {}
    for version in ("1.0", "1.1"):
        memory.write_text(json.dumps({"default": {"version": version, "archive": "m.mar"}}))
        loaded[version] = serve.configuration(TEMPLATE, {}, tmp_path)["load_models"]
    assert loaded == {"1.0": "m.mar,m-1.1.mar", "1.1": "m-1.1.mar,m.mar"}
    assert not capsys.readouterr().err
    for damaged in ("{", "[]", '{"default": 1}'):
        memory.write_text(damaged)
        assert serve.configuration(TEMPLATE, {}, tmp_path)["load_models"] == "m-1.1.mar,m.mar"
        told = capsys.readouterr().err
        assert "imagebatch_serve: m.serving.json is damaged" in told
        assert told.count("\n") == 1


def test_workers_are_one_per_core_unless_told(tmp_path: Path) -> None:
    """An empty variable, as compose passes it, counts as none."""
    cores = str(len(os.sched_getaffinity(0)))
    told = [{}, {"IMAGEBATCH_WORKERS": ""}, {"IMAGEBATCH_WORKERS": "7"}]
    found = [serve.configuration(TEMPLATE, each, tmp_path)["default_workers_per_model"] for each in told]
    assert found == [cores, cores, "7"]


def test_a_configuration_beside_the_models_opens_no_api(tmp_path: Path) -> None:
    """What a storage brings may switch keys off, and neither move an address nor let archives in from
    elsewhere; what it leaves out is as shipped.
    """
    own = """
disable_token_authorization=true
management_address=http://0.0.0.0:8081
model_store=/mnt/models/model-store
job_queue_size=7
"""
    found = serve.configuration(f"{TEMPLATE}\n{own}", {}, tmp_path)
    assert (found["disable_token_authorization"], found["job_queue_size"]) == ("true", "7")
    assert found["management_address"] == "http://127.0.0.1:8081"
    assert found["model_store"] == str(tmp_path)
    assert not re.fullmatch(found["allowed_urls"], "file:///elsewhere/a.mar")
    assert found["metrics_mode"] == "prometheus"


@pytest.mark.parametrize("keys_off", [True, False])
def test_health_waits_for_a_key_where_there_will_be_one(tmp_path: Path, keys_off: bool) -> None:  # noqa: FBT001 - a column of the table
    """With keys switched off the management API is asked without one."""
    (number,) = ports(1)
    lines = {
        "disable_token_authorization": str(keys_off).lower(),
        "management_address": f"http://127.0.0.1:{number}",
    }
    (tmp_path / "config.properties").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    said = serve.unhealthy(tmp_path / "key_file.json", tmp_path)
    assert said.startswith("management API: ") if keys_off else said == "no management key yet"


def test_an_unknown_name_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78 and the variable to correct, before anything is started."""
    monkeypatch.setenv("IMAGEBATCH_MANAGEMENT_HOST", "no-such-name.invalid")
    monkeypatch.setenv("IMAGEBATCH_SERVER_FOLDER", str(tmp_path))
    assert serve.main([]) == 78
    assert "IMAGEBATCH_MANAGEMENT_HOST=no-such-name.invalid" in capfd.readouterr().err
