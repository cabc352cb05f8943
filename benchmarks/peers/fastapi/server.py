"""FastAPI and uvicorn, two workers: an upload per request, or 32 images in one body."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, UploadFile
from models import open_model, unpack

found: dict[str, Any] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Load the model once per worker."""
    found["model"] = open_model()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(file: UploadFile) -> Any:
    """Score one upload."""
    return found["model"].predict([await file.read()])


@app.post("/pack")
async def pack(request: Request) -> Any:
    """Score many images of one body."""
    return found["model"].predict(unpack(await request.body()))


if __name__ == "__main__":
    port = int(os.environ["PEER_PORT"])
    uvicorn.run("server:app", host="127.0.0.1", port=port, workers=2, log_level="warning")
