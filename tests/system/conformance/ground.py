"""What all checks stand on: images, an archive, and the run that a real TorchServe gives of them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebatch import cli
from imagebatch.commands.conformance import NAMELESS
from imagebatch.conformance import Subject
from imagebatch.conformance.pictures import drawn
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ModelApi
from imagebatch.settings import ApiSettings

from tests.support.handler_archives import LABELS, write_archive
from tests.support.images import jpeg
from tests.system.chaos.torchserve import TorchServe
from tests.system.conformance.servers import MODEL, Server
from tests.system.kit.verdict import require

IMAGES = 300
OF_THE_MODEL = ("model", "model_version", "model_digest")
# It passes the check of headers, and its pixels end early.
TRUNCATED = "truncated.jpg"


@dataclass(frozen=True)
class Contestant:
    """A server, and the model API by which it is asked.

    Attributes:
        name: In the table.
        server: The server; several contestants may share one.
        backend: `--backend`.
        card: The model card, beside the labels.
        version: `--model-version`.
        grpc: Whether it is asked over gRPC.
        template: `--request-template`.
    """

    name: str
    server: type[Server]
    backend: str
    card: tuple[tuple[str, Any], ...] = ()
    version: str = ""
    grpc: bool = False
    template: Path | None = None

    @property
    def way(self) -> str:
        """How it is asked, in one word."""
        return f"{self.backend}{'-grpc' * self.grpc}{'-pixels' * ('pixels' in dict(self.card))}"

    def run_id(self, name: str) -> str:
        """Name one of its runs."""
        return f"{self.server.__name__.lower()}-{self.way}-{name}"


class Ground:
    """Files that the checks share, and the servers that are up.

    Args:
        folder: An empty folder for everything.

    Attributes:
        said: The log of the command that runs, or ran last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()
        for seed in range(IMAGES):
            (self.images / f"{seed:03}.jpg").write_bytes(jpeg(seed, (160 + seed % 7, 120)))
        whole = jpeg(IMAGES, (160, 120))
        (self.images / TRUNCATED).write_bytes(whole[: len(whole) // 2])
        self.archive = write_archive(folder)
        self.runs = folder / "runs"
        self._servers: dict[type[Server], Server] = {}
        self.said = io.StringIO()
        self.reference = self._of_torchserve()

    def server(self, kind: type[Server]) -> Server:
        """Return a server of this kind that is ready."""
        if kind not in self._servers:
            folder = self.folder / kind.__name__.lower()
            self._servers[kind] = kind(folder, self.folder / "unpacked", LABELS)
            self._servers[kind].start()
        return self._servers[kind]

    def another(self, kind: type[Server], *, of_another_model: bool) -> Server:
        """Start one more server of this kind; whoever asks for it kills it."""
        model = self.folder / ("unpacked-other" if of_another_model else "unpacked")
        if not model.exists():
            shutil.copytree(self.folder / "unpacked", model)
            # Weights are 32-bit numbers as they stand in the file: one that occurs in it becomes another.
            was, becomes = struct.pack("<f", 0.03), struct.pack("<f", 0.06)
            weights = (model / "model.bin").read_bytes()
            require(was in weights, "the archive's weights are not as they were")
            (model / "model.bin").write_bytes(weights.replace(was, becomes))
        folder = Path(tempfile.mkdtemp(prefix=f"{kind.__name__.lower()}-", dir=self.folder)) / "server"
        server = kind(folder, model, LABELS)
        server.start()
        return server

    def settings(self, contestant: Contestant) -> dict[str, Any]:
        """Return the settings of its model API."""
        card = self.folder / f"{contestant.run_id('card')}.json"
        card.write_text(json.dumps({"labels": LABELS} | dict(contestant.card)))
        server = self.server(contestant.server)
        template = {"request_template": str(contestant.template)} if contestant.template else {}
        url = server.grpc_url if contestant.grpc else server.url
        return {"api_url": url, "model_card": str(card)} | template

    def api(self, contestant: Contestant, model: str = MODEL) -> ModelApi:
        """Open its model API."""
        settings = ApiSettings(**self.settings(contestant))
        return open_backend(contestant.backend, settings, model, contestant.version)

    def subject(self, contestant: Contestant) -> Subject:
        """Give a server to the checks of `imagebatch conformance`, with all that they may do to it."""
        settings = ApiSettings(**self.settings(contestant))
        server = self.server(contestant.server)
        api = self.api(contestant)

        def restart() -> None:
            server.kill()
            server.start()

        return Subject(
            connect=lambda model: open_backend(contestant.backend, settings, model, contestant.version),
            api=api,
            pin=api.describe(),
            images=drawn(24),
            top_k=4,
            names_models=contestant.backend not in {*NAMELESS, "http"},
            most=16,
            restart=restart,
        )

    def run(self, contestant: Contestant, name: str, **more: object) -> list[dict[str, str]]:
        """Score all images; return the rows of predictions.csv."""
        settings = self.settings(contestant) | more
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
        backend = [f"--backend={contestant.backend}", f"--model-version={contestant.version}"]
        return self._rows(contestant.run_id(name), backend, flags)

    def require_same(self, rows: list[dict[str, str]]) -> None:
        """Require the rows of the reference, but for what they say of the model."""

        def answers(row: dict[str, str]) -> dict[str, str]:
            return {name: value for name, value in row.items() if name not in OF_THE_MODEL}

        pairs = zip(self.reference, rows, strict=True)
        different = [a["image_id"] for a, b in pairs if answers(a) != answers(b)]
        require(not different, f"{len(different)} rows differ from TorchServe's, {different[:3]} among them")

    def _of_torchserve(self) -> list[dict[str, str]]:
        store = self.folder / "store"
        store.mkdir()
        self.archive.rename(store / f"{MODEL}.mar")
        server = TorchServe(self.folder / "reference", store)
        server.wait_until_ready()
        flags = [f"--api-url={server.inference}", f"--management-url={server.management}"]
        rows = self._rows("torchserve", [], [*flags, f"--key-file={server.key_file}"])
        server.kill()
        return rows

    def _rows(self, run_id: str, source: list[str], flags: list[str]) -> list[dict[str, str]]:
        where = [f"--run-id={run_id}", f"--runs-uri={self.runs}"]
        listing = [f"--input={self.images}", f"--model={MODEL}", "--shard-size=100", *source]
        api = [flag for flag in flags if not flag.startswith(("--in-flight", "--pack-size"))]
        self.call("preprocess", *where, *listing, *api)
        self.call("score", *where, "--pack-size=32", "--retry-seconds=120", *flags)
        self.call("postprocess", *where)
        output = self.runs / run_id / "output"
        failed = list(csv.DictReader((output / "failures.csv").open(newline="")))
        require([row["image_id"] for row in failed] == [TRUNCATED], f"failures: {failed}")
        return list(csv.DictReader((output / "predictions.csv").open(newline="")))

    def call(self, *arguments: str, code: int = 0) -> str:
        """Run a command in this process, and require its exit code; return its log."""
        self.said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(self.said):
            ended = cli.call(list(arguments))
        said = self.said.getvalue()
        require(ended == code, f"{arguments[0]} ended with {ended}: {said[-300:]}")
        return said
