"""Who is measured: how each is started, and how it is asked.

Every server gets two workers of one thread each unless its name says otherwise; every client is `client.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.paths import ROOT

PEERS = ROOT / "benchmarks" / "peers"
Kind = Literal["eager", "ours"]
Group = Literal["ours", "users", "engine", "script"]


@dataclass(frozen=True)
class Contestant:
    """One way to score photographs.

    Attributes:
        name: Short, for the command line and the results.
        label: For the table.
        group: `ours`; `users`: a server as its users run it; `engine`: handed our engine, our pixels and 32
            images a request; `script`: no server.
        kind: Eager torch and Pillow, or our engine and pixels.
        environment: Whose environment it runs in, a folder of peers/ or a part of the repository.
        program: Of a script, arguments of that environment's Python; of a server, a program of it and
            its arguments.
        form: How it is asked, a key of `forms.FORMS`; empty for scripts.
        path: Of the address that is asked.
        in_flight: Requests under way at once.
        workers: Of stock TorchServe.
        threads: Of each of its workers; 0: as torch chooses.
        batch: Of stock TorchServe: most requests that its front end joins.
        flags: Of `imagebatch score`, beside the run.
        pixels: Version of the pixels that the archive declares; empty: as the archive is.
    """

    name: str
    label: str
    group: Group
    kind: Kind
    environment: str
    program: tuple[str, ...] = ()
    form: str = ""
    path: str = ""
    in_flight: int = 1
    workers: int = 2
    threads: int = 1
    batch: int = 1
    flags: tuple[str, ...] = ()
    pixels: str = ""

    @property
    def programs(self) -> Path:
        """The `bin` of its environment."""
        peer = PEERS / self.environment
        return (peer if peer.is_dir() else ROOT / self.environment) / ".venv" / "bin"

    @property
    def folder(self) -> Path:
        """Where its program is started."""
        peer = PEERS / self.environment
        return peer if peer.is_dir() else ROOT

    @property
    def colours(self) -> str:
        """What images it takes: TorchServe's own handler stumbles over grey ones."""
        return "RGB" if self.form in {"loop", "stock"} else "any"


SINGLE, PACKED = 16, 8  # requests in flight: of one image, of 32
_BENTO = ("bentoml", "serve", "server:Images", "--host", "127.0.0.1", "--port", "{port}")


def stock(workers: int, threads: int, in_flight: int, batch: int = 1) -> Contestant:
    """Stock TorchServe with these settings."""
    name = f"stock-{workers}x{threads}-{in_flight}" + (f"-batch{batch}" if batch > 1 else "")
    label = f"TorchServe `image_classifier`, {workers} x {threads} threads, {in_flight} in flight"
    settings = {"in_flight": in_flight, "workers": workers, "threads": threads, "batch": batch}
    return Contestant(name, label, "users", "eager", "torch", form="stock", **settings)


STOCK_GRID = [
    stock(workers, threads, in_flight, batch)
    for workers, threads in ((1, 2), (2, 1), (2, 2), (3, 1), (4, 1))
    for in_flight, batch in ((2, 1), (4, 1), (16, 1), (16, 8))
]

_TUNED = stock(3, 1, 4)

CONTESTANTS = [
    Contestant(
        *("ours", "**imagebatch score** with TorchServe", "ours", "ours", "pipeline_image"),
        ("-m", "benchmarks.lib.scorer"),
    ),
    Contestant(
        *("ceiling", "in-process ceiling, two processes", "ours", "ours", "handlers"),
        ("-m", "benchmarks.lib.ceiling"),
    ),
    Contestant(
        "stock-default",
        "TorchServe `image_classifier`, `requests.post` in a loop",
        *("users", "eager", "torch"),
        form="loop",
        threads=0,
    ),
    Contestant(
        "stock-tuned",
        _TUNED.label.replace("image_classifier`,", "image_classifier` at its best:"),
        *("users", "eager", "torch"),
        form="stock",
        in_flight=_TUNED.in_flight,
        workers=_TUNED.workers,
        threads=_TUNED.threads,
        batch=_TUNED.batch,
    ),
    Contestant(
        *("fastapi", "FastAPI + uvicorn", "users", "eager", "fastapi", ("python", "server.py")),
        *("upload", "/predict", SINGLE),
    ),
    Contestant(
        *("fastapi-ours", "FastAPI + uvicorn", "engine", "ours", "fastapi", ("python", "server.py")),
        *("raw-pack", "/pack", PACKED),
    ),
    Contestant(
        *("litserve", "LitServe", "users", "eager", "litserve", ("python", "server.py")),
        *("upload", "/predict", SINGLE),
    ),
    Contestant(
        *("litserve-ours", "LitServe", "engine", "ours", "litserve", ("python", "server.py")),
        *("upload-named-pack", "/predict", PACKED),
    ),
    Contestant(*("bentoml", "BentoML", "users", "eager", "bentoml", _BENTO), *("upload", "/predict", SINGLE)),
    Contestant(
        *("bentoml-ours", "BentoML", "engine", "ours", "bentoml", _BENTO), *("upload-pack", "/pack", PACKED)
    ),
    Contestant(
        *("ray-serve", "Ray Serve", "users", "eager", "ray", ("python", "server.py")), *("raw", "/", SINGLE)
    ),
    Contestant(
        *("ray-serve-ours", "Ray Serve", "engine", "ours", "ray", ("python", "server.py")),
        *("raw-pack", "/pack", PACKED),
    ),
    Contestant(
        *("kserve", "KServe's Python server", "users", "eager", "kserve", ("python", "server.py")),
        *("v1", "/v1/models/images:predict", SINGLE),
    ),
    Contestant(
        *("kserve-ours", "KServe's Python server", "engine", "ours", "kserve", ("python", "server.py")),
        *("v1-pack", "/v1/models/images:predict", PACKED),
    ),
    Contestant(
        *("mlserver", "MLServer", "users", "eager", "mlserver", ("mlserver", "start", ".")),
        *("v2", "/v2/models/images/infer", SINGLE),
    ),
    Contestant(
        *("mlserver-ours", "MLServer", "engine", "ours", "mlserver", ("mlserver", "start", ".")),
        *("v2-pack", "/v2/models/images/infer", PACKED),
    ),
    Contestant(
        *("dataloader", "DataLoader and eager torch, one script", "script", "eager", "torch", ("loop.py",)),
        threads=0,
    ),
    Contestant(
        *("ray-data", "Ray Data, actor pool, eager torch", "script", "eager", "ray", ("data.py",)),
    ),
    Contestant(*("ray-data-ours", "Ray Data, actor pool", "engine", "ours", "ray", ("data.py",))),
]

WHOLE = [
    Contestant(
        *("ours-whole", "imagebatch score, every file decoded whole (`pixels: 1`)", "ours", "ours"),
        *("pipeline_image", ("-m", "benchmarks.lib.scorer")),
        pixels="1",
    )
]
"""Measured beside the others on large photographs: the same archive, as before there was scaling."""


def chosen(names: list[str]) -> list[Contestant]:
    """Contestants by name, in the order of the table; all without names."""
    everyone = [*CONTESTANTS, *WHOLE, *STOCK_GRID]
    unknown = set(names) - {each.name for each in everyone}
    if unknown:
        there = ", ".join(each.name for each in everyone)
        raise SystemExit(f"no contestant {', '.join(sorted(unknown))}; there are {there}")
    return [each for each in everyone if each.name in names] if names else list(CONTESTANTS)
