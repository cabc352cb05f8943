"""The images themselves, whatever compose adds: an ordinary user, no tools, nothing to be written."""

import json
import subprocess
from typing import Any

import pytest

from tools.compose import images
from tools.compose.stack import present

CONFINED = ["--rm", "--read-only", "--network=none", "--cap-drop=ALL", "--tmpfs=/tmp"]
TOOLS = ("gcc", "cc", "g++", "c++", "clang", "ld", "as", "make", "cmake", "pip", "pip3", "uv", "git")
NEEDED = {"imagebatch-training": ["pip", "pip3"]}  # `imagebatch-train data` and `weights` take wheels by it
FOUND = """
import json, os, shutil
tools = [name for name in json.loads({tools!r}) if shutil.which(name)]
own = os.access("/opt/imagebatch", os.W_OK)
print(json.dumps({{"tools": tools, "user": os.getuid(), "group": os.getgid(), "writable": own}}))
"""
WORKS = {
    "imagebatch": ["imagebatch", "--version"],
    "imagebatch-serving": ["torchserve", "--version"],
    "imagebatch-airflow": ["python", "-c", "import airflow, imagebatch_dags.factory"],
    "imagebatch-tracking": ["mlflow", "--version"],
    "imagebatch-kserve": ["python", "-m", "imagebatch_kserve.server", "--help"],
    "imagebatch-training": ["imagebatch-train", "--help"],
}


@pytest.fixture(params=images.IMAGES, ids=lambda image: image.name)
def image(request: pytest.FixtureRequest) -> images.Image:
    """Take each image in turn; one that is no service of the stack only where it was built."""
    if request.param.name not in images.SERVED and not present(f"{request.param.name}:latest"):
        pytest.skip(f"{request.param.name} was not built: make images")
    return request.param


def ran(image: images.Image, *command: str) -> str:
    """Run a command in an image as it is, with a root file system that cannot be written."""
    argv = ["docker", "run", *CONFINED, f"{image.name}:latest", *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_an_image_holds_no_tools_and_its_user_is_nobody(image: images.Image) -> None:
    """No compiler or uv, an installer only where it is needed; a numeric user who cannot write programs."""
    found = json.loads(ran(image, "python", "-c", FOUND.format(tools=json.dumps(TOOLS))))
    tools = NEEDED.get(image.name, [])
    assert found == {"tools": tools, "user": 10001, "group": 10001, "writable": False}


def test_an_image_works_without_writing_to_itself(image: images.Image) -> None:
    """Its program starts on a read-only root file system, with /tmp alone."""
    ran(image, *WORKS[image.name])


def test_an_image_says_what_it_is_and_has_not_grown(image: images.Image) -> None:
    """OCI labels, no entry point, a numeric user for Kubernetes, and no more MB than it may have."""
    argv = ["docker", "image", "inspect", f"{image.name}:latest"]
    found: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)[0]
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert not config["Entrypoint"]
    assert config["Labels"]["org.opencontainers.image.title"] == image.name
    assert config["Labels"]["org.opencontainers.image.revision"]
    assert not image.largest or found["Size"] <= image.largest * images.MB
