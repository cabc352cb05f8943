"""The verb `release` with a real, small training and MLflow's registry in SQLite, without a model server."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from imagebatch_training.archive.archive import ensure_archive
from imagebatch_training.cli import main
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.files import read_json, sha256_file
from imagebatch_training.fit.train import ensure_trained
from imagebatch_training.images.data import ensure_data, require_data
from imagebatch_training.release.answers import answer_all
from imagebatch_training.release.gates import judge
from imagebatch_training.release.handover import Asked
from imagebatch_training.release.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from imagebatch_training.release.run import release, roll_back, withdraw
from imagebatch_training.settings import Settings

from tests.system.release.conftest import settings_of, words
from tests.training.shapes import CLASSES

pytestmark = pytest.mark.timeout(900)
ALONE = Asked(server=None)


@pytest.fixture(scope="module")
def first(root: Path) -> Settings:
    """Version 1.0 is champion."""
    settings = settings_of(root)
    release(settings, ALONE)
    return settings


def aliases(settings: Settings) -> dict[str, str]:
    registry = Registry(settings.tracking, "shapes")
    found = {alias: registry.named(alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
    return {alias: entry.version for alias, entry in found.items() if entry}


def test_one_command_from_nothing_to_the_champion(
    root: Path, first: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each step; a second time nothing is made again; the record tells what is released."""
    store = Path(first.paths.model_store)
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    told = release(first, ALONE)
    assert [line.partition(":")[0] for line in told.lines] == [
        "train",
        "archive",
        "gates",
        "register",
        "promote",
    ]
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before
    assert aliases(first) == {CHAMPION: "1.0"}
    record = read_json(store / "shapes.release.json")
    assert record["archive"]["sha256"] == sha256_file(store / "shapes.mar")
    assert record["archive"]["digest"] == read_json(store / "shapes.json")["digest"]
    assert record["mlflow_run"] == read_json(Path(first.paths.training) / "report.json")["run_id"]
    assert record["data"].startswith("sha256:")
    bill = read_json(store / record["sbom"]["file"])
    assert record["sbom"]["sha256"] == sha256_file(store / record["sbom"]["file"])
    assert bill["bomFormat"] == "CycloneDX"
    assert {"torchserve", "openvino", "torch"} <= {part["name"] for part in bill["components"]}
    assert not (store / "shapes.release.json.sig").exists()
    assert main(["release", "--no-serve", "--until", "train", "--json", *words(root)]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["run_id"] == record["mlflow_run"]


def test_the_archive_is_the_one_that_the_verb_archive_makes(first: Settings, tmp_path: Path) -> None:
    """A release adds files beside the archive and none inside: byte for byte the same."""
    elsewhere = settings_of(Path(first.paths.training).parent, f"paths.model_store='{tmp_path}'")
    assert ensure_archive(elsewhere)["mar_sha256"] == sha256_file(
        Path(first.paths.model_store) / "shapes.mar"
    )


def test_a_second_version_lies_beside_the_first_and_is_taken_back(root: Path, first: Settings) -> None:
    """The number of a released version is never given to other weights; rollback moves the alias, twice."""
    other = settings_of(root, "probe.penalties=[0.5]", f"paths.training='{root / 'training-2'}'")
    with pytest.raises(
        ConfigurationError, match=r"shapes 1.0 is another archive already: .* model.version=1.1"
    ):
        release(other, ALONE)
    assert aliases(first) == {CHAMPION: "1.0"}
    second = settings_of(
        root, "probe.penalties=[0.5]", f"paths.training='{root / 'training-2'}'", "model.version=next"
    )
    waiting = release(second, Asked(server=None, until="register"))
    assert waiting.figures["gates"]["against"] == "1.0"
    assert len(waiting.figures["gates"]["gates"]) == 6
    assert aliases(first) == {CHAMPION: "1.0", CHALLENGER: "1.1"}
    assert not (root / "model_store/shapes-1.1.mar").exists()
    withdraw(second, None)
    assert aliases(first) == {CHAMPION: "1.0"}
    release(second, ALONE)
    assert aliases(first) == {CHAMPION: "1.1", PREVIOUS: "1.0"}
    assert {path.name for path in (root / "model_store").glob("*.mar")} == {"shapes.mar", "shapes-1.1.mar"}
    roll_back(first, None)
    assert aliases(first) == {CHAMPION: "1.0", PREVIOUS: "1.1"}
    roll_back(first, None)
    assert aliases(first) == {CHAMPION: "1.1", PREVIOUS: "1.0"}
    roll_back(first, None)


def test_shuffled_labels_are_stopped_at_the_gate(root: Path, first: Settings, tmp_path: Path) -> None:
    """A real training on them: against its own test images it is chance, against the true ones worse.

    Nothing of it is in the store or the registry afterwards, and what was champion is.
    """
    shuffled = tmp_path / "images"
    files = sorted((root / "images").rglob("*.png"))
    classes = [path.parent.name for path in files]
    random.Random(3).shuffle(classes)
    for number, (path, name) in enumerate(zip(files, classes, strict=True)):
        (shuffled / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, shuffled / name / f"{number:03}.png")
    own = [f"paths.{name}='{tmp_path / name}'" for name in ("data", "training")]
    settings = settings_of(
        root, f"data.images='{shuffled}'", *own, "model.version=next", "release.allow_unpredicted=true"
    )
    before = aliases(first)
    with pytest.raises(DataError, match=r"is not released: accuracy 0\.\d+ .* the commonest class alone"):
        release(settings, ALONE)
    assert aliases(first) == before
    assert not list((root / "model_store").glob("shapes-1.2*"))
    (archive,) = (tmp_path / "training/candidate").glob("*.mar")
    ensure_data(first)
    ensure_trained(first)
    answers, truth = answer_all([archive, root / "model_store/shapes.mar"], require_data(first))
    parity = read_json(archive.with_suffix(".parity.json"))
    failed = {gate.name for gate in judge(*answers, truth, parity, first.release) if not gate.passed}
    assert {"not worse overall", "above chance"} <= failed


@pytest.mark.usefixtures("first")
def test_a_release_is_signed_where_there_is_a_key(root: Path, tmp_path: Path) -> None:
    """OpenSSL verifies it; one changed byte it does not; another kind of key is refused."""
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    told = release(settings_of(root, f"release.signing_key='{private}'"), ALONE)
    assert told.figures["register"]["signed"] is True
    record = root / "model_store/shapes.release.json"

    def verified(content: Path) -> bool:
        asked = [
            "openssl",
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            str(public),
            "-rawin",
            "-in",
            str(content),
        ]
        asked += ["-sigfile", f"{record}.sig"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    assert verified(record)
    changed = tmp_path / "changed.json"
    changed.write_text(record.read_text().replace("shapes.mar", "shaped.mar"))
    assert not verified(changed)
    private.write_text("no key")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        release(settings_of(root, f"release.signing_key='{private}'"), ALONE)


def test_every_class_has_images(root: Path) -> None:
    """What the other tests take for granted."""
    assert {path.name for path in (root / "images").iterdir()} == set(CLASSES)
