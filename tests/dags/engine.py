"""A real engine for tests: an image that runs a script as `imagebatch`, and what belongs to one test."""

import gc
import uuid
import warnings
from collections.abc import Iterator
from io import BytesIO

import docker
from docker.errors import DockerException

BASE = "python:3.11-slim-bookworm"
MISSING = f"no container engine here, or not the image {BASE}"
IMAGE = "imagebatch-test-stage:latest"
# `imagebatch SCRIPT ARGUMENTS…` runs the script: the operator and the engine are real, the stage is short.
DOCKERFILE = f"""FROM {BASE}
RUN printf '#!/bin/sh\\nexec python -u -c "$@"\\n' > /usr/local/bin/imagebatch \\
    && chmod 755 /usr/local/bin/imagebatch
"""


def connect() -> docker.APIClient | None:
    """Connect to this machine's engine; nothing where there is none, or not the base image."""
    try:
        client = docker.APIClient(version="auto", timeout=30)
    except DockerException:
        client = None
    if client is None:
        with warnings.catch_warnings():
            # The client forgets to close a socket that nobody listens on: collected here, not in a test.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        return None
    if client.images(name=BASE):
        return client
    client.close()
    return None


def build(client: docker.APIClient) -> None:
    """Build the test image, in under two seconds once its layers are there."""
    for line in client.build(fileobj=BytesIO(DOCKERFILE.encode()), tag=IMAGE, rm=True, decode=True):
        assert "error" not in line, line


def installation(client: docker.APIClient) -> Iterator[str]:
    """Make up an installation of its own, and leave none of its containers behind."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    for found in client.containers(all=True, filters={"label": f"imagebatch.installation={name}"}):
        client.remove_container(found["Id"], force=True, v=True)
