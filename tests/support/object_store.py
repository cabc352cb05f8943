"""A small store that speaks S3 on loopback; if it is told to, it ignores conditions, as look-alikes do."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from threading import Lock, Thread
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.model_server import QuietServer

_WRITTEN = datetime(2026, 1, 31, tzinfo=UTC)


class ObjectStore:
    """Keeps objects until closed.

    Args:
        conditional: Whether `If-None-Match: *` is kept; `None`: it is refused with 501.

    Attributes:
        url: Where it listens.
        objects: Contents by `bucket/key`.
        requests: How many were answered.
    """

    def __init__(self, *, conditional: bool | None = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests = 0
        self._conditional = conditional
        self._writing = Lock()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                store._get(self)

            def do_HEAD(self) -> None:
                store._get(self)

            def do_PUT(self) -> None:
                store._put(self)

            def do_DELETE(self) -> None:
                store.objects.pop(_key(self), None)
                _send(self, 204, b"")

            def do_POST(self) -> None:  # removal in bulk is not needed
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                _send(self, 501, _error("NotImplemented"))

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        key = _key(request)
        if "/" not in key.rstrip("/"):
            return _send(request, 200, self._listed(key.rstrip("/"), query))
        data = self.objects.get(key)
        if data is None:
            return _send(request, 404, _error("NoSuchKey"))
        asked = request.headers.get("Range", "")
        if asked.startswith("bytes="):
            first, last = asked.removeprefix("bytes=").split("-")
            begin, end = int(first), min(int(last or len(data)), len(data) - 1)
            if begin >= len(data):
                return _send(request, 416, _error("InvalidRange"))
            headers = {"Content-Range": f"bytes {begin}-{end}/{len(data)}"}
            return _send(request, 206, data[begin : end + 1], headers, of=data)
        return _send(request, 200, data, of=data)

    def _put(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        data = request.rfile.read(int(request.headers["Content-Length"]))
        condition = request.headers.get("If-None-Match")
        key = _key(request)
        with self._writing:
            if condition and self._conditional is None:
                return _send(request, 501, _error("NotImplemented"))
            if condition and self._conditional and key in self.objects:
                return _send(request, 412, _error("PreconditionFailed"))
            self.objects[key] = data
        return _send(request, 200, b"", of=data)

    def _listed(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        """Answer ListObjectsV2, all in one page, keys encoded as asked."""
        prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        below = len(bucket) + 1
        keys = sorted(key[below:] for key in self.objects if key.startswith(f"{bucket}/{prefix}"))
        folders: dict[str, None] = {}
        found = []
        for key in keys:
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            if at < 0:
                found.append(
                    f"<Contents><Key>{escape(quote(key))}</Key><Size>{len(self.objects[f'{bucket}/{key}'])}</Size>"
                    f"<LastModified>{_WRITTEN.isoformat()}</LastModified><ETag>&quot;e&quot;</ETag></Contents>"
                )
            else:
                folders[key[: at + 1]] = None
        found += [
            f"<CommonPrefixes><Prefix>{escape(quote(folder))}</Prefix></CommonPrefixes>" for folder in folders
        ]
        return (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>'
            f"<IsTruncated>false</IsTruncated>{''.join(found)}</ListBucketResult>"
        ).encode()


def _key(request: BaseHTTPRequestHandler) -> str:
    return unquote(urlsplit(request.path).path)[1:]


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    of: bytes | None = None,
) -> None:
    request.send_response(status)
    if of is not None:
        request.send_header("ETag", f'"{hashlib.md5(of, usedforsecurity=False).hexdigest()}"')
        request.send_header("Last-Modified", format_datetime(_WRITTEN, usegmt=True))
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
