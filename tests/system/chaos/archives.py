"""Archives that no user would make: one whose worker exits on a marked image, one in another's place."""

import json
import zipfile
from pathlib import Path

MARK = b"this image makes the worker exit"

_HANDLER = f'''"""A handler that a marked image makes exit, as a crash in native code would."""

import os

from imagebatch_handler import ImageBatchHandler


class ExitingHandler(ImageBatchHandler):
    """Exits on the mark."""

    def inference(self, request):
        """Score the images, or die."""
        for _, content in request.images:
            if not isinstance(content, Exception) and {MARK!r} in bytes(content):
                os._exit(1)
        return super().inference(request)
'''


def poisonable(source: Path, target: Path, version: str) -> None:
    """Copies an archive, under another version, with a handler that exits on `MARK`."""
    manifest = json.loads(zipfile.ZipFile(source).read("MAR-INF/MANIFEST.json"))
    manifest["model"] |= {"handler": "exiting_handler.py", "modelVersion": version}
    _repack(source, target, {"MAR-INF/MANIFEST.json": json.dumps(manifest), "exiting_handler.py": _HANDLER})


def replacement(source: Path, target: Path) -> None:
    """Copies an archive, under the same name and version, with other content."""
    text = zipfile.ZipFile(source).read("model-config.yaml").decode()
    _repack(source, target, {"model-config.yaml": f"{text}# Another archive than the first one.\n"})


def _repack(source: Path, target: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in files:
                new.writestr(name, old.read(name))
        for name, text in files.items():
            new.writestr(name, text)
