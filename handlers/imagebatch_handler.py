"""The TorchServe handler: docs/reference/wire.md in, predictions out.

TorchServe takes the only class of this module. One call may hold several requests (its server-side batch);
each is answered on its own, so that one bad request or image never costs another.
"""

import base64
import sys
from pathlib import Path
from typing import Any

import torch
from imagebatch_archive import MODULES
from imagebatch_header import ImageError
from imagebatch_heads import OutOfRangeError
from imagebatch_model import ImageModel, Settings
from imagebatch_wire import Content, Headers, Request, RequestError, Row, dump, parse


class ImageBatchHandler:
    """Scores the images of requests with the model of its archive."""

    def initialize(self, context: Any) -> None:
        """Load the archive that TorchServe unpacked.

        Args:
            context: TorchServe's context: model name, manifest, folder and parsed `model-config.yaml`.

        Raises:
            RuntimeError: The code that runs is not the archive's own.
            ValueError: The configuration is wrong.
            FileNotFoundError: The archive is incomplete.
        """
        torch.set_num_threads(1)  # one worker per core: more threads per worker only fight each other
        folder = Path(context.system_properties["model_dir"]).resolve()
        _check_origin(folder)
        self.model = ImageModel(folder, Settings.from_config(context.model_yaml_config or {}))
        version = str(context.manifest["model"].get("modelVersion", ""))
        self.identity = {"name": context.model_name, "version": version, "digest": self.model.digest}

    def preprocess(self, rows: list[Row], headers: list[Headers]) -> list[Request | RequestError]:
        """Parse every request of the batch; an error stands in the place of a malformed one."""
        return [self._parse(row, row_headers) for row, row_headers in zip(rows, headers, strict=True)]

    def inference(self, request: Request) -> list[dict[str, Any]]:
        """Score the images of one request: an entry per image, in order, with its answer or with an error."""
        return [
            self._entry(name, content, request, position)
            for position, (name, content) in enumerate(request.images)
        ]

    def postprocess(self, request: Request, entries: list[dict[str, Any]]) -> tuple[int, bytes]:
        """Make the reply of one request: status and body."""
        failed = request.single and "error" in entries[0]
        body = {"model": self.identity} | self.model.head.kind | {"images": entries}
        return (422 if failed else 200), dump(body)

    def describe_handle(self, *, memory: bool = False) -> bytes:
        """Make the model's description, for `{"describe": true}` and for `?customized=true`."""
        shares = {"memory": True} if memory else {}
        return dump({"model": self.identity} | self.model.describe() | shares)

    def handle(self, data: list[Row], context: Any) -> list[bytes]:
        """Answer one batch of requests.

        Args:
            data: Body parts of each request.
            context: TorchServe's context: each request's headers; takes each reply's status and content type.

        Returns:
            One JSON body per request.
        """
        headers = [context.get_all_request_header(index) for index in range(len(data))]
        bodies = []
        for index, request in enumerate(self.preprocess(data, headers)):
            status, body = self._answer(request)
            context.set_response_content_type(index, "application/json")
            context.set_response_status(code=status, idx=index)
            bodies.append(body)
        return bodies

    def _parse(self, row: Row, headers: Headers) -> Request | RequestError:
        try:
            return parse(row, headers, self.model.settings)
        except RequestError as error:
            return error

    def _answer(self, request: Request | RequestError) -> tuple[int, bytes]:
        if isinstance(request, RequestError):
            return 400, dump({"error": str(request)})
        if request.describe:
            return 200, self.describe_handle(memory=request.memory)
        if request.embeddings and not self.model.embedding:
            engine = self.model.settings.engine
            return 400, dump({"error": f"X-Embeddings: this archive's graph for {engine} gives no features"})
        return self.postprocess(request, self.inference(request))

    def _entry(self, name: str, content: Content, request: Request, position: int) -> dict[str, Any]:
        page = request.pages.get(position)
        scored = self._score(content, request.top_k, page, embed=position in request.embeddings)
        return {"id": name} | ({"page": page} if page else {}) | scored

    def _score(self, content: Content, top_k: int, page: int | None, *, embed: bool) -> dict[str, Any]:
        # One image after the other, pixels and logits: memory stays flat however many a request holds.
        try:
            if isinstance(content, ImageError):
                raise content
            logits = self.model.infer(self.model.decode(content, page))
            entry = self.model.entry(self.model.predict(logits, top_k))
        except (ImageError, OutOfRangeError) as error:
            return {"error": {"reason": error.reason, "detail": error.detail}}
        if embed and (features := self.model.features()) is not None:
            entry["embedding"] = base64.b64encode(features.astype("<f4").tobytes()).decode()
        return entry


def _check_origin(folder: Path) -> None:
    """Refuse to run code that the archive's digest does not cover, such as an installed copy of a module."""
    for file in MODULES:
        origin = Path(str(sys.modules[Path(file).stem].__file__)).resolve().parent
        if origin != folder:
            raise RuntimeError(f"{file} was imported from {origin} and not from the archive in {folder}")
