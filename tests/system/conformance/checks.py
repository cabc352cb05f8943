"""What every model API must do with every server; each check is a function of the ground and a contestant."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from imagebatch.errors import UnknownModelError
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.mlflow import MLflow

from tests.support.images import encoded, jpeg, photograph
from tests.system.conformance.ground import Contestant, Ground
from tests.system.kit.verdict import RefutedError, Seen, require

Check = Callable[[Ground, Contestant], Seen]
OF_THE_MODEL = ("model", "model_version", "model_digest")


def _same(ground: Ground, rows: list[dict[str, str]]) -> None:
    def answers(row: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in row.items() if name not in OF_THE_MODEL}

    different = [
        a["image_id"] for a, b in zip(ground.reference, rows, strict=True) if answers(a) != answers(b)
    ]
    require(not different, f"{len(different)} rows differ from TorchServe's, {different[:3]} among them")


def golden_csv(ground: Ground, contestant: Contestant) -> Seen:
    """A run gives the rows of TorchServe's, to the last digit, and the one broken image in failures.csv."""
    rows = ground.run(contestant, "golden")
    _same(ground, rows)
    return Seen(f"{len(rows)} rows the same")


def order(ground: Ground, contestant: Contestant) -> Seen:
    """The answers of a pack are those of its images asked alone, as often as they are asked."""
    api = ground.api(contestant)
    images = [ImagePayload(f"{seed}-x", jpeg(seed)) for seed in range(24)]
    together = api.predict(images, 4).answers
    alone = [api.predict([image], 4).answers[0] for image in images]
    require(list(together) == alone, "a pack is answered differently from its images")
    require(len(set(together)) > 1, "all images have the same answer")
    require(api.describe() == api.describe(), "the model is pinned differently from one moment to the next")
    return Seen("24 of 24")


def broken_image(ground: Ground, contestant: Contestant) -> Seen:
    """Bytes that are no image are refused, and the next request is answered."""
    api = ground.api(contestant)
    bad = ImagePayload("bad", b"\xff\xd8\xff no image")
    try:
        seen = f"told: {api.predict([bad], 4).answers[0].reason}"
    except ApiFaultError as fault:
        require(fault.fault in {Fault.WORKER_DIED, Fault.BAD_REPLY}, f"taken as {fault.fault}")
        seen = " ".join(str(fault).partition(": ")[2].split()[:2])  # HTTP 500, gRPC INTERNAL
    require(api.predict([ImagePayload("good", jpeg(1))], 4).answers[0].labels, "the next one is not answered")
    return Seen(seen)


def unknown_model(ground: Ground, contestant: Contestant) -> Seen:
    """A model that is not there is told at once, with code 78."""
    api = ground.api(contestant, "nothing")
    if isinstance(api, MLflow):
        return Seen("no names")
    try:
        found = api.describe()
    except UnknownModelError:
        return Seen("code 78")
    raise RefutedError(f"it was described: {found}")


def large_request(ground: Ground, contestant: Contestant) -> Seen:
    """A request of 16 MiB, the most that the scorer sends, is answered or refused as too large."""
    api = ground.api(contestant)
    image = encoded(photograph(3, (1400, 1000)))
    pack = [ImagePayload(f"{number}-x", image) for number in range(max(1, (16 << 20) // len(image)))]
    try:
        answers = api.predict(pack, 4).answers
    except ApiFaultError as fault:
        require(fault.fault is Fault.TOO_LARGE, f"taken as {fault}")
        return Seen("refused, halved")
    require(len(set(answers)) == 1 and len(answers) == len(pack), "other answers")
    return Seen("answered")


def crowd(ground: Ground, contestant: Contestant) -> Seen:
    """Thirty-two requests at once change no answer."""
    _same(ground, ground.run(contestant, "crowd", in_flight=32))
    return Seen("same rows")


def killed(ground: Ground, contestant: Contestant) -> Seen:
    """A server killed in the middle of a run and started again costs time, and no row."""
    server = ground.server(contestant.server)
    ended = threading.Event()
    shard = ground.runs / contestant.run_id("killed") / "scores"

    def disturb() -> None:
        while not any(shard.glob("*")):  # the first request follows at once
            if ended.wait(0.001):
                return
        server.kill()
        server.start()

    with ThreadPoolExecutor(1) as thread:
        disturbed = thread.submit(disturb)
        try:
            rows = ground.run(contestant, "killed", in_flight=2)
        finally:
            ended.set()
        disturbed.result()
    _same(ground, rows)
    counts = [json.loads(file.read_text()) for file in shard.parent.glob("telemetry/*.json")]
    retries = sum(count.get("retries", 0) for count in counts)
    require(retries, "the server was killed too late for the run to notice")
    return Seen(f"same rows, {retries:.0f} retries")


CHECKS: tuple[Check, ...] = (golden_csv, order, broken_image, unknown_model, large_request, crowd, killed)
