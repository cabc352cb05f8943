"""From Airflow's side of the engine's proxy nothing passes but what a stage's life takes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

CAPTURE = """
import json
from imagebatch_dags.stage import stage
operator = stage("anything", ["--version"])
operator._normalize_mounts()
client = operator.cli
sent = []
send = client._post_json
def keep(address, data, **more):
    sent.append((address, json.dumps({name: value for name, value in data.items() if value is not None})))
    return send(address, data, **more)
client._post_json = keep
operator._start(operator._work())
operator._remove()
address, body = sent[0]
print(json.dumps({"path": "/" + address.split("/", 3)[3], "name": operator.container["Id"], "body": body}))
"""
ASK = """
import http.client, json
def ask(method, address, content=None, headers=None):
    connection = http.client.HTTPConnection("engine-proxy", 2375, timeout=60)
    sent = {"Content-Type": "application/json", **(headers or {})}
    try:
        connection.request(method, address, content, sent, encode_chunked="Transfer-Encoding" in sent)
    except BrokenPipeError:
        pass  # refused before it was read to its end
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status
"""


@dataclass(frozen=True)
class Create:
    """A real create call, and how what it makes is removed."""

    path: str
    name: str
    body: str

    @property
    def url(self) -> str:
        """Where it is posted to."""
        return f"{self.path}?name={self.name}"

    @property
    def container(self) -> str:
        """The path of what it makes."""
        return f"{self.path.removesuffix('create')}{self.name}"


@pytest.fixture(scope="module")
def create(in_scheduler: Callable[[str], str]) -> Create:
    """Keep the call that the DAG's own operator makes."""
    return Create(**json.loads(in_scheduler(CAPTURE)))


@pytest.fixture(scope="module")
def ask(in_scheduler: Callable[[str], str]) -> Callable[..., list[int]]:
    """Make calls where tasks run, each (method, path, body, headers), and give their statuses."""

    def run(*calls: tuple[Any, ...]) -> list[int]:
        answers: list[int] = json.loads(
            in_scheduler(f"{ASK}\nprint(json.dumps([ask(*call) for call in {calls!r}]))")
        )
        return answers

    return run


def test_the_operators_own_call_passes(ask: Callable[..., list[int]], create: Create) -> None:
    """The same bytes, sent by hand, are accepted: the refusals below are due to what is changed."""
    remove = f"{create.container}?v=True&link=False&force=True"
    assert ask(("POST", create.url, create.body), ("DELETE", remove)) == [201, 204]


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


def test_a_container_of_any_other_kind_is_refused(ask: Callable[..., list[int]], create: Create) -> None:
    """Every change of the body that would widen what a container may do, one at a time."""
    bodies = {what: create.body.replace(old, new) for what, (old, new) in CHANGES.items()}
    assert [what for what, body in bodies.items() if body == create.body] == []
    answers = ask(*(("POST", create.url, body) for body in bodies.values()))
    assert dict(zip(bodies, answers, strict=True)) == dict.fromkeys(bodies, 403)


def test_other_ways_to_send_a_body_are_refused(ask: Callable[..., list[int]], create: Create) -> None:
    """In pieces, too large to be looked at, with an upgrade, with a name of another kind, or without one."""
    body = create.body
    attempts = {
        "chunked": ("POST", create.url, [body.encode()], {"Transfer-Encoding": "chunked"}),
        "large": ("POST", create.url, body.replace("--version", "x" * 200_000)),
        "upgrade": ("POST", f"{create.container}/start", None, {"Connection": "Upgrade", "Upgrade": "tcp"}),
        "no name": ("POST", create.path, body),
        "other name": ("POST", f"{create.path}?name=mine", body),
        "platform": ("POST", f"{create.url}&platform=x", body),
        "body elsewhere": ("POST", f"{create.container}/start", "{}"),
    }
    answers = ask(*attempts.values())
    assert dict(zip(attempts, answers, strict=True)) == dict.fromkeys(attempts, 403)


def test_other_containers_cannot_be_touched(
    ask: Callable[..., list[int]], containers: dict[str, dict[str, Any]]
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
    assert ask(*calls) == [403] * len(calls)


def test_nothing_else_of_the_engine_answers(ask: Callable[..., list[int]]) -> None:
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
    assert ask(*calls) == [403] * len(calls)
