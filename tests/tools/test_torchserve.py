import json
import re
import sys
import zipfile
from pathlib import Path

import pytest

from tools import properties
from tools.torchserve import NAMES, SHIPPED, TorchServe


@pytest.fixture
def server(tmp_path: Path) -> TorchServe:
    """Describe a server that was never started."""
    return TorchServe(tmp_path / "server", tmp_path / "store", {"job_queue_size": 6})


def test_the_shipped_configuration_is_kept_but_for_the_sites_lines(server: TorchServe) -> None:
    """What this server does not own reads as shipped; ports, folders and settings are its own."""
    server.configure()
    shipped, written = properties.read(SHIPPED), properties.read(server.config)
    changed = {name for name in shipped if written[name] != shipped[name]}
    assert written.keys() == shipped.keys()
    assert changed == {
        *(f"{api}_address" for api in ("inference", "management", "metrics")),
        *("grpc_inference_port", "grpc_management_port", "initial_worker_port"),
        *("model_store", "load_models", "allowed_urls", "vmargs", "job_queue_size"),
    }
    assert written["vmargs"] == f"{shipped['vmargs']} -Djava.io.tmpdir={server.temporary}"
    assert re.fullmatch(written["allowed_urls"], f"file://{server.store}/solar-cells.mar")
    assert not re.fullmatch(written["allowed_urls"], f"file://{server.store}/folder/solar-cells.mar")


def test_a_copy_that_is_left_over_is_not_started(
    server: TorchServe, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files are named in the place of `all`: TorchServe ends where two hold one version of a model."""
    server.store.mkdir()
    for name in ("m.mar", "m-copy.mar"):
        with zipfile.ZipFile(server.store / name, "w") as packed:
            packed.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelName": "m", "modelVersion": "1.0"}}')
    server.configure()
    assert properties.read(server.config)["load_models"] == "m.mar"
    assert "m-copy.mar is not served: m.mar holds m 1.0, too" in capsys.readouterr().out


def test_nothing_of_it_listens_beyond_loopback(server: TorchServe) -> None:
    """Every address is 127.0.0.1, each with a port of its own."""
    addresses = {
        value for name, value in server.configuration().items() if name.endswith(("_address", "_port"))
    }
    hosts = [str(value).removeprefix("http://").partition(":")[0] for value in addresses]
    assert set(hosts) - {str(port) for port in server.ports.values()} == {"127.0.0.1"}
    assert len(set(server.ports.values())) == len(NAMES)


def test_a_setting_that_the_shipped_file_does_not_have_is_refused(tmp_path: Path) -> None:
    """TorchServe ignores a misspelt name in silence; whoever configures it here does not."""
    with pytest.raises(ValueError, match="has no job_queue_sise"):
        TorchServe(tmp_path, tmp_path, {"job_queue_sise": 6}).configure()


def test_its_java_and_its_workers_are_the_named_ones(server: TorchServe) -> None:
    """Everything that it leaves on disk stays in its folder, and the Java is the one that it is given."""
    variables = server.variables(Path(sys.executable))
    assert variables.pop("JAVA_HOME") == str(Path(sys.executable).resolve().parent.parent)
    assert {Path(value).parent for value in variables.values()} == {server.folder}
    assert server.argv[0] == str(server.programs / "torchserve")


def test_the_default_of_each_model_is_loaded_first(server: TorchServe) -> None:
    """TorchServe takes the version that it loads first; without a word they come by name."""
    server.store.mkdir()
    for name, version in (("m.mar", "1.0"), ("m-1.1.mar", "1.1"), ("a.mar", "1.0"), ("m-1.10.mar", "1.10")):
        with zipfile.ZipFile(server.store / name, "w") as packed:
            model = {"modelName": name[0], "modelVersion": version}
            packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))

    def loaded() -> str:
        server.configure()
        return properties.read(server.config)["load_models"]

    assert loaded() == "a.mar,m-1.1.mar,m-1.10.mar,m.mar"
    serving = server.store / "m.serving.json"
    serving.write_text(json.dumps({"default": {"version": "1.0", "archive": "m.mar"}}))
    assert loaded() == "m.mar,a.mar,m-1.1.mar,m-1.10.mar"
    for damaged in ("{", "[]", '{"default": null}'):
        serving.write_text(damaged)
        assert loaded() == "a.mar,m-1.1.mar,m-1.10.mar,m.mar"
