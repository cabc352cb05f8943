"""From Airflow's side of the engine's proxy nothing passes but what a stage's life takes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

CAPTURE = """
import http.client, json
from imagebatch_dags.stage import stage
operator = stage("anything", ["--version"])
operator._normalize_mounts()
client = operator.cli
url, body = [], []
send = client._post_json
def keep(address, data, **more):
    text = json.dumps({name: value for name, value in data.items() if value is not None})
    url.append(address); body.append(text)
    return send(address, data, **more)
client._post_json = keep
operator._start()
operator._remove()
path = "/" + url[0].split("/", 3)[3]
name = operator.container["Id"]
def ask(method, address, content=None, headers=None):
    connection = http.client.HTTPConnection("engine-proxy", 2375, timeout=30)
    sent = {"Content-Type": "application/json", **(headers or {})}
    connection.request(method, address, content, sent, encode_chunked="Transfer-Encoding" in sent)
    answer = connection.getresponse()
    answer.read(); connection.close()
    return answer.status
create = f"{path}?name={name}"
remove = f"{path.removesuffix('create')}{name}?v=True&link=False&force=True"
"""


@pytest.fixture(scope="module")
def ask_engine(in_scheduler: Callable[[str], str]) -> Callable[[str], Any]:
    """Evaluate an expression where a task runs, with `ask`, and the path and body of a real create."""

    def run(expression: str) -> Any:
        return json.loads(in_scheduler(f"{CAPTURE}\nprint(json.dumps({expression}))"))

    return run


def test_the_operators_own_call_passes(ask_engine: Callable[[str], Any]) -> None:
    """The same bytes, sent by hand, are accepted: the refusals below are due to what is changed."""
    assert ask_engine("[ask('POST', create, body[0]), ask('DELETE', remove)]") == [201, 204]


CHANGES = {
    "privileged": ('"ReadonlyRootfs": true', '"Privileged": true, "ReadonlyRootfs": true'),
    "writable root": ('"ReadonlyRootfs": true', '"ReadonlyRootfs": false'),
    "capabilities kept": ('"CapDrop": ["ALL"]', '"CapDrop": []'),
    "capabilities added": ('"CapDrop": ["ALL"]', '"CapAdd": ["SYS_ADMIN"], "CapDrop": ["ALL"]'),
    "the machine's files": ('"Target": "/data/runs", "Source": "', '"Target": "/data/runs", "Source": "/'),
    "a bind": ('"PidsLimit"', '"Binds": ["/:/host"], "PidsLimit"'),
    "one mount more": (
        '"Mounts": [',
        '"Mounts": [{"Target": "/x", "Source": "/", "Type": "bind", "ReadOnly": false}, ',
    ),
    "writable inputs": ('"ReadOnly": true', '"ReadOnly": false'),
    "another image": ('"Image": "', '"Image": "x'),
    "another network": ('"NetworkMode": "', '"NetworkMode": "x'),
    "the machine's network": ('"NetworkMode": "', '"NetworkMode": "host", "X": "'),
    "root": ('"User": "10001:10001"', '"User": "0:0"'),
    "another program": ('"Cmd": ["imagebatch"', '"Cmd": ["sh"'),
    "an entry point": ('"Cmd"', '"Entrypoint": ["sh"], "Cmd"'),
    "an environment": ('"Env": ["IMAGEBATCH_', '"Env": ["LD_PRELOAD=/data/runs/x", "IMAGEBATCH_'),
    "a second host configuration": ('"StopSignal"', '"HostConfig": {"Privileged": true}, "StopSignal"'),
    "one in other letters": ('"StopSignal"', '"hostconfig": {"Privileged": true}, "StopSignal"'),
    "a second document": ('"SIGINT"}', '"SIGINT"} {"HostConfig": {"Privileged": true}}'),
    "a device": ('"PidsLimit"', '"Devices": [{"PathOnHost": "/dev/sda"}], "PidsLimit"'),
    "a label that ends early": ('"Labels": {', '"Labels": {}, "HostConfig": {"Privileged": true}, "X": {'),
}


def test_a_container_of_any_other_kind_is_refused(ask_engine: Callable[[str], Any]) -> None:
    """Every change of the body that would widen what a container may do, one at a time."""
    script = (
        "{what: [body[0].replace(old, new) != body[0], ask('POST', create, body[0].replace(old, new))]"
        f" for what, (old, new) in {CHANGES!r}.items()}}"
    )
    answers = ask_engine(script)
    assert answers == {what: [True, 403] for what in CHANGES}


def test_other_ways_to_send_a_body_are_refused(ask_engine: Callable[[str], Any]) -> None:
    """In pieces, too large to be looked at, with an upgrade, with a name of another kind, or without one."""
    attempts = {
        "chunked": "ask('POST', create, iter([body[0].encode()]), {'Transfer-Encoding': 'chunked'})",
        "large": "ask('POST', create, body[0].replace('--version', 'x' * 200000))",
        "upgrade": "ask('POST', create, body[0], {'Connection': 'Upgrade', 'Upgrade': 'tcp'})",
        "no name": "ask('POST', path, body[0])",
        "other name": "ask('POST', path + '?name=mine', body[0])",
        "platform": "ask('POST', create + '&platform=x', body[0])",
        "body elsewhere": "ask('POST', f\"{path.removesuffix('create')}{name}/start\", '{}')",
    }
    answers = ask_engine("{" + ", ".join(f"{what!r}: {call}" for what, call in attempts.items()) + "}")
    assert answers == dict.fromkeys(attempts, 403)


def test_other_containers_cannot_be_touched(
    ask_engine: Callable[[str], Any], containers: dict[str, dict[str, Any]]
) -> None:
    """PostgreSQL's container, by name, id and any spelling of a path: not seen, stopped or entered."""
    found = containers["postgres"]
    calls = [
        (method, f"/v1.45/containers/{who}{what}")
        for who in (
            found["Name"].strip("/"),
            found["Id"],
            found["Id"][:12],
            f"imagebatch-stage-{'0' * 32}/../{found['Id']}",
            f"imagebatch-stage-{'0' * 32}/..%2f{found['Id']}",
            f"imagebatch-stage-{'0' * 32}%2f..%2f{found['Id']}",
            f"%69magebatch-stage-{'0' * 32}",
        )
        for method, what in (
            ("GET", "/json"),
            ("GET", "/logs?stdout=1"),
            ("GET", "/archive?path=/"),
            ("GET", "/top"),
            ("POST", "/stop?t=0"),
            ("POST", "/kill"),
            ("POST", "/exec"),
            ("POST", "/attach?stream=1"),
            ("DELETE", "?v=True&link=False&force=True"),
        )
    ]
    assert ask_engine(f"[ask(method, path) for method, path in {calls!r}]") == [403] * len(calls)


def test_nothing_else_of_the_engine_answers(ask_engine: Callable[[str], Any]) -> None:
    """No listing beyond one's own, no pull, build, exec, volume, network, plugin, secret, event or swarm."""
    stage = f"imagebatch-stage-{'0' * 32}"
    calls = [
        ("GET", "/v1.45/containers/json"),
        ("GET", "/v1.45/containers/json?all=1"),
        ("GET", "/v1.45/info"),
        ("GET", "/v1.45/events"),
        ("GET", "/v1.45/volumes"),
        ("GET", "/v1.45/networks"),
        ("GET", "/v1.45/secrets"),
        ("GET", "/v1.45/images/imagebatch/get"),
        ("GET", f"/v1.45/containers/{stage}/archive?path=/run/imagebatch/keys"),
        ("PUT", f"/v1.45/containers/{stage}/archive?path=/data/runs"),
        ("POST", f"/v1.45/containers/{stage}/exec"),
        ("POST", f"/v1.45/containers/{stage}/update"),
        ("POST", f"/v1.45/containers/{stage}/rename?name=x"),
        ("POST", f"/v1.45/containers/{stage}/attach?stream=1&stdin=1"),
        ("POST", "/v1.45/images/create?fromImage=evil"),
        ("POST", "/v1.45/build"),
        ("POST", "/v1.45/commit"),
        ("POST", "/v1.45/volumes/create"),
        ("POST", "/v1.45/networks/create"),
        ("POST", "/v1.45/swarm/init"),
        ("POST", "/v1.45/plugins/pull?remote=x"),
        ("DELETE", "/v1.45/images/imagebatch"),
        ("DELETE", "/v1.45/volumes/x"),
    ]
    assert ask_engine(f"[ask(method, path) for method, path in {calls!r}]") == [403] * len(calls)
