"""`make images`: build the images and print their sizes. Names of images as arguments build only those."""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools.paths import ROOT, fail, run, say, step

MB = 10**6
KSERVE = "deploy/kserve/predictor"
WHEEL = re.compile(r"torch-(?P<version>[0-9.]+)\+cpu-cp311-")


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        name: without its tag.
        dockerfile: relative to the repository.
        context: folder that its files come from, relative to the repository.
        largest: MB beyond which it has grown too large; 0: no limit.
        target: stage of the Dockerfile; empty: the last.
        torch: whether it holds torch.
    """

    name: str
    dockerfile: str
    context: str
    largest: int
    target: str = ""
    torch: bool = False


IMAGES = (
    Image("imagebatch", "pipeline_image/Dockerfile", "pipeline_image", 800),
    Image("imagebatch-serving", "handlers/Dockerfile", "handlers", 1800, torch=True),
    Image("imagebatch-airflow", "airflow/Dockerfile", ".", 800),
    Image("imagebatch-tracking", "training/Dockerfile", ".", 1200, target="tracking"),
    Image("imagebatch-kserve", f"{KSERVE}/Dockerfile", KSERVE, 1800, torch=True),
    Image("imagebatch-training", "training/Dockerfile", ".", 0, target="training", torch=True),
)
SERVED = ("imagebatch", "imagebatch-serving", "imagebatch-airflow", "imagebatch-tracking")
"""What docker-compose.yaml runs; training is not a service, and KServe's server is for its clusters."""


def main() -> int:
    """Build what is asked for.

    Returns:
        0, or 1 where an image is larger than it may be.
    """
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", help=", ".join(image.name for image in IMAGES))
    names = options.parse_args().names or [image.name for image in IMAGES]
    unknown = sorted(set(names) - {image.name for image in IMAGES})
    if unknown:
        fail(f"no image {unknown[0]}", 2)
    grown = [size for image in IMAGES if image.name in names and (size := build(image))]
    if grown:
        fail("; ".join(grown), 1)
    return 0


def build(image: Image, *, cache: bool = True) -> str:
    """Build one image and print its size.

    Args:
        image: which.
        cache: take layers of earlier builds.

    Returns:
        What is wrong with its size, or nothing.
    """
    tag = f"{image.name}:{os.environ.get('IMAGEBATCH_TAG', 'latest')}"
    with step(f"build {tag}"):
        fresh = [] if cache else ["--no-cache"]
        run(["docker", "build", "--quiet", *fresh, *arguments(image), "-t", tag, image.context], quiet=True)
    size = int(run(["docker", "image", "inspect", "-f", "{{.Size}}", tag], quiet=True)) / MB
    say(f"{tag:<34}{size:7.0f} MB")
    return f"{tag} is {size:.0f} MB, more than {image.largest}" if 0 < image.largest < size else ""


def arguments(image: Image) -> list[str | Path]:
    """Build the arguments of `docker build` for an image.

    `PYTHON_IMAGE` names another base, `IMAGEBATCH_EXTRAS` what the pipeline image reads beyond files and S3,
    `IMAGEBATCH_WHEELS` a folder with a CPU wheel of torch, `TORCH_SOURCE`
    another index of such wheels (or `lock`, for training: torch as the lock has it, with CUDA).
    """
    version = tomllib.loads((ROOT / "pipeline_image" / "pyproject.toml").read_text())["project"]["version"]
    values = {"VERSION": version, "REVISION": revision()}
    if os.environ.get("PYTHON_IMAGE"):
        values["PYTHON_IMAGE"] = os.environ["PYTHON_IMAGE"]
    if image.name == "imagebatch" and os.environ.get("IMAGEBATCH_EXTRAS"):
        values["EXTRAS"] = os.environ["IMAGEBATCH_EXTRAS"]
    extra: list[str | Path] = ["--file", image.dockerfile]
    if image.target:
        extra += ["--target", image.target]
    if image.torch:
        values |= torch_arguments(image)
        wheels = wheelhouse()
        if values.get("TORCH_SOURCE") == "wheels" and wheels:
            extra += ["--build-context", f"wheels={wheels}"]
    return extra + [part for name, value in values.items() for part in ("--build-arg", f"{name}={value}")]


def torch_arguments(image: Image) -> dict[str, str]:
    """Choose where an image's torch comes from."""
    if os.environ.get("TORCH_SOURCE"):
        return {"TORCH_SOURCE": os.environ["TORCH_SOURCE"]}
    folder = wheelhouse()
    if folder is None:
        return {}
    if image.target == "training" and not any(folder.glob("torchvision-*+cpu-cp311-*.whl")):
        return {"TORCH_SOURCE": "lock"}  # torchvision and torch are a pair: both from one source
    return {"TORCH_SOURCE": "wheels", "TORCH_VERSION": wheel_versions(folder)[-1]}


def wheelhouse() -> Path | None:
    """Find a folder with a CPU wheel of torch: `IMAGEBATCH_WHEELS`, else where this machine's pip looks."""
    named = os.environ.get("IMAGEBATCH_WHEELS")
    if named:
        if not wheel_versions(Path(named)):
            fail(f"IMAGEBATCH_WHEELS={named} holds no torch-…+cpu-cp311-….whl")
        return Path(named)
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        if wheel_versions(Path(folder)):
            return Path(folder)
    return None


def wheel_versions(folder: Path) -> list[str]:
    """List the versions of the CPU wheels of torch in a folder, the newest last."""
    found = [match["version"] for path in folder.glob("torch-*.whl") if (match := WHEEL.match(path.name))]
    return sorted(found, key=lambda text: [int(part) for part in text.split(".")])


def revision() -> str:
    """Name the commit that is built, with `-dirty` where files differ from it."""
    described: list[str | Path] = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match", ""]
    done = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
