"""Any HTTP server that answers JSON: its request and reply as a template in YAML.

What the file looks like is in docs/reference/model-apis.md. Needs the extra `http`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.json_reply import read_json
from imagebatch.model_apis.scores import Row, row_of
from imagebatch.model_apis.served import Rows, Said, ServedModel
from imagebatch.settings import ApiSettings

FILE, IMAGES, BASE64, MODEL, VERSION = "$file", "$images", "$base64", "$model", "$version"
_RAW = "application/octet-stream"


class RequestTemplate(BaseModel):
    """What is sent.

    Attributes:
        path: Behind `--api-url`; `$model` and `$version` in it are replaced.
        headers: Beside the content type.
        body: JSON in which `$images` stands for the list of all images, or `$file` alone, for an image's
            bytes.
        image: JSON of one image in that list, in which `$base64` stands for its file.
        most: Images of a request; 0: as many as the scorer packs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = ""
    headers: dict[str, str] = {}
    body: Any
    image: Any = BASE64
    most: int = Field(default=0, ge=0)


class ReplyTemplate(BaseModel):
    """Where the answers are, as JSONPath (RFC 9535): all but `images` and `digest` within an image's node.

    Attributes:
        images: One node for each image, in their order.
        probabilities: A list of numbers, or a node for each.
        labels: Their names; empty: in the order of the classes.
        reason: Why an image is refused; no node, or an empty one: it is not.
        digest: Of the model that answered; empty: not told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str
    probabilities: str = "$"
    labels: str = ""
    reason: str = ""
    digest: str = ""


class Template(BaseModel):
    """The file.

    Attributes:
        request: What is sent.
        reply: Where the answers are.
        ready: Path that answers 200 to a GET when the server is ready; empty: an image tells.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: RequestTemplate
    reply: ReplyTemplate
    ready: str = ""

    @classmethod
    def read(cls, path: str) -> Self:
        """Read the file of `--request-template`.

        Raises:
            ConfigurationError: There is none, or it is no template.
        """
        import yaml  # noqa: PLC0415 (of an extra, looked for by `connect`)

        if not path:
            raise ConfigurationError("--backend http needs --request-template, a YAML file")
        try:
            return cls.model_validate(yaml.safe_load(Path(path).read_text("utf-8")))
        except OSError as error:
            raise ConfigurationError(f"--request-template {path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(f"--request-template {path}: {where}: {first['msg']}") from error
        except (ValueError, yaml.YAMLError) as error:
            raise ConfigurationError(f"--request-template {path}: {one_line(error, 200)}") from error


def connect(settings: ApiSettings, model: str, version: str) -> HttpTemplate:
    """Return a client for one model.

    Raises:
        ConfigurationError: No template, one that cannot be, or the extra is not installed.
    """
    try:
        import jsonpath  # noqa: F401, PLC0415 (of the extra)
        import yaml  # noqa: F401, PLC0415 (of the extra)
    except ImportError as error:
        raise ConfigurationError(
            f"--backend http needs {error.name}: install the extra, imagebatch[http]"
        ) from error
    return HttpTemplate(settings, model, version)


class HttpTemplate(ServedModel):
    """A client for whatever the template describes."""

    def __init__(self, settings: ApiSettings, model: str, version: str) -> None:
        super().__init__(settings, model, version)
        self._template = Template.read(settings.request_template)
        self._paths = {name: _compiled(name, text) for name, text in self._template.reply if text}
        names = {MODEL: model, VERSION: version}
        self._request = _filled(self._template.request.model_dump(), names)
        for name, value in names.items():
            self._request["path"] = self._request["path"].replace(name, value)

    @override
    def said(self) -> Said:
        self.require_route_ready()
        return Said(version=self._version)

    @override
    def require_route_ready(self) -> None:
        if self._template.ready:
            self.ask("GET", self._template.ready)

    @override
    def rows(self, images: Sequence[ImagePayload]) -> Rows:
        most = 1 if self._request["body"] == FILE else self._template.request.most or len(images)
        found = [self._asked(images[start : start + most]) for start in range(0, len(images), most)]
        digests = {piece.digest for piece in found}
        if len(digests) > 1:
            raise ApiFaultError(Fault.BAD_REPLY, "two models answered at once")
        return Rows([row for piece in found for row in piece.rows], digests.pop())

    def _asked(self, images: Sequence[ImagePayload]) -> Rows:
        request = self._request
        if request["body"] == FILE:
            headers = {"Content-Type": _RAW} | request["headers"]
            answer = self.ask("POST", request["path"], data=images[0].data, headers=headers)
        else:
            texts = [base64.b64encode(image.data).decode() for image in images]
            listed = [_filled(request["image"], {BASE64: text}) for text in texts]
            body = _filled(request["body"], {IMAGES: listed})
            answer = self.ask("POST", request["path"], json=body, headers=request["headers"])
        reply = read_json(answer.content)
        digest = next(iter(self._nodes("digest", reply)), "")
        return Rows([self._row(node) for node in self._nodes("images", reply)], str(digest or ""))

    def _row(self, node: Any) -> Row:
        reason = next(iter(self._nodes("reason", node)), None)
        if reason:
            return row_of({"error": reason if isinstance(reason, dict) else str(reason)})
        numbers = _one_list(self._nodes("probabilities", node))
        if "labels" not in self._paths:
            return row_of(numbers)
        return row_of({"labels": _one_list(self._nodes("labels", node)), "probabilities": numbers})

    def _nodes(self, name: str, content: Any) -> list[Any]:
        if name not in self._paths:
            return []
        if not isinstance(content, dict | list):
            return []
        found: list[Any] = self._paths[name].findall(content)
        return found


def _compiled(name: str, text: str) -> Any:
    from jsonpath import JSONPathError, compile  # noqa: A004, PLC0415 (of the extra)

    try:
        return compile(text)
    except JSONPathError as error:
        raise ConfigurationError(f"--request-template: reply.{name}: {one_line(error, 200)}") from error


def _filled(content: Any, values: Mapping[str, Any]) -> Any:
    """Replace every text that is a name of `values`, at any depth."""
    if isinstance(content, dict):
        return {key: _filled(value, values) for key, value in content.items()}
    if isinstance(content, list):
        return [_filled(value, values) for value in content]
    return values.get(content, content) if isinstance(content, str) else content


def _one_list(nodes: list[Any]) -> list[Any]:
    """Return the values that nodes are: the only one's elements, where that is a list."""
    return nodes[0] if len(nodes) == 1 and isinstance(nodes[0], list) else nodes
