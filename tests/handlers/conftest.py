"""A small real model, archived by torch-model-archiver, and a real TorchServe that serves it."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import imagebatch_archive
import numpy as np
import openvino
import pytest
import requests
import torch
from PIL import Image

from tools.torchserve import TorchServe

HANDLERS = Path(imagebatch_archive.__file__).parent
LABELS = ["mono-sound", "mono-defective", "poly-sound", "poly-defective", "other"]


class Network(torch.nn.Module):
    """Small, random, shaped as archives' models: uint8 pixels, normalised inside, logits and features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.features = torch.nn.Conv2d(3, 16, 9, stride=8)
        self.classifier = torch.nn.Linear(16, len(LABELS))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normal = (pixels.to(torch.float32) / 255 - 0.45) / 0.225
        features = torch.relu(self.features(normal)).mean((2, 3))
        return self.classifier(features) * 8, features


@pytest.fixture(scope="session")
def photograph() -> Image.Image:
    """320 x 280 smooth random colours: real enough for JPEG, and not symmetric in any way."""
    noise = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((320, 280), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Write an image in a format, with the options of Pillow's save."""

    def write(image: Image.Image, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return write


@pytest.fixture(scope="session")
def archive_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an archive: both engines' models, labels, configuration, code."""
    folder = tmp_path_factory.mktemp("archive")
    network = Network().eval()
    program = torch.export.export(network, (torch.zeros((1, 3, 224, 224), dtype=torch.uint8),))
    torch.export.save(program, folder / "model.pt2")
    model = openvino.convert_model(program)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    (folder / "index_to_name.json").write_text(json.dumps(dict(enumerate(LABELS))))
    for file in imagebatch_archive.MODULES:
        shutil.copy(imagebatch_archive.module_path(file, HANDLERS), folder)
    shutil.copy(HANDLERS / "model-config.yaml", folder)
    return folder


@pytest.fixture(scope="session")
def plain_folder(archive_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same archive with a graph for OpenVINO that gives logits only, as a user's own may."""
    folder = shutil.copytree(archive_folder, tmp_path_factory.mktemp("plain") / "archive")
    graph = openvino.Core().read_model(archive_folder / "model.xml")
    graph.remove_result(graph.get_results()[1])
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    return folder


@pytest.fixture(scope="session")
def model_store(archive_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with solar-cells.mar in it."""
    store = tmp_path_factory.mktemp("store")
    extra = ["model.xml", "model.bin", "index_to_name.json", *imagebatch_archive.MODULES[1:]]
    argv = [Path(sys.executable).with_name("torch-model-archiver")]
    argv += ["--model-name", "solar-cells", "--version", "1.0", "--export-path", store]
    argv += ["--handler", archive_folder / imagebatch_archive.MODULES[0]]
    argv += ["--serialized-file", archive_folder / "model.pt2"]
    argv += ["--extra-files", ",".join(str(archive_folder / file) for file in extra)]
    argv += ["--config-file", archive_folder / "model-config.yaml"]
    subprocess.run(argv, check=True, capture_output=True)
    return store


@dataclass(frozen=True)
class Server:
    """A running TorchServe: addresses, and the folder that it was started in."""

    inference: str
    management: str
    metrics: str
    folder: Path

    def key(self, kind: str) -> dict[str, str]:
        """The header that carries a key: `inference`, `management` or `API`."""
        keys = json.loads((self.folder / "key_file.json").read_text())
        return {"Authorization": f"Bearer {keys[kind]['key']}"}

    def predict(self, *, headers: Mapping[str, str] | None = None, **body: object) -> requests.Response:
        """POST to the model with the inference key."""
        url = f"{self.inference}/predictions/solar-cells"
        return requests.post(url, headers=self.key("inference") | dict(headers or {}), timeout=30, **body)


@pytest.fixture(scope="session")
def server(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """TorchServe with the shipped configuration on loopback ports of its own, tokens on."""
    folder = tmp_path_factory.mktemp("server")
    settings = {"load_models": "solar-cells.mar", "default_workers_per_model": 1}
    made = TorchServe(folder, model_store, settings, programs=Path(sys.executable).parent)
    made.configure()
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            made.argv,
            cwd=folder,
            env=os.environ | made.environment() | {"IMAGEBATCH_TEST_CREDENTIAL": "hidden"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Server(made.inference, made.management, f"http://127.0.0.1:{made.ports['metrics']}", folder)
    try:
        _wait_until_ready(running, process)
        yield running
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if server.predict(json={"describe": True}).status_code == 200:
                return
        time.sleep(0.5)
    pytest.fail("TorchServe did not start:\n" + (server.folder / "output.log").read_text()[-4000:])
