"""What KServe's server lacks: a bound on request bodies, and paths that name the model's version."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class OwnVersion:
    """ASGI middleware that lets a path name the version that is served, as V1 and V2 have it.

    KServe's server answers 501 or 404 to any version; it still does to all others.

    Args:
        app: What it stands before.
        version: The version.
    """

    def __init__(self, app: Application, version: str) -> None:
        self._app = app
        self._named = re.compile(rf"(/v[12]/models/[^/]+)/versions/{re.escape(version)}(?=[:/]|$)")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, without the version in its path."""
        if scope["type"] == "http":
            scope = {**scope, "path": self._named.sub(r"\1", scope["path"], count=1)}
        await self._app(scope, receive, send)


class BodyLimit:
    """ASGI middleware that answers 413 to a body that says it is too large, and cuts off one that lies.

    KServe's server would read it until its pod is out of memory.

    Args:
        app: What it stands before.
        most: Bytes of a body.
    """

    def __init__(self, app: Application, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most:
            await self._refuse(send)
            return
        taken, refused = 0, False

        async def bounded() -> Message:
            nonlocal taken, refused
            message = await receive()
            taken += len(message.get("body", b""))
            if taken <= self._most:
                return message
            refused = True
            return {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            if not refused:
                await send(message)

        try:
            await self._app(scope, bounded, answer)
        finally:
            if refused:
                await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        body = json.dumps({"error": f"a request holds at most {self._most} bytes"}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})
