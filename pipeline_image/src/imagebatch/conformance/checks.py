"""The checks that send a few requests, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from imagebatch.conformance.likeness import TOLERANCE, apart, require_alike
from imagebatch.conformance.load import at_once, restarted
from imagebatch.conformance.pictures import garbage, heavy
from imagebatch.conformance.subject import Check, NotKeptError, SkippedError, Subject
from imagebatch.contracts.records import ModelPin
from imagebatch.errors import UnknownModelError
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault

# A model that nobody serves.
_NOTHING = "imagebatch-conformance-nothing"
# A scorer looks for the image that has caused these; any other fault of a bad image it would wait out.
_OF_AN_IMAGE = {Fault.WORKER_DIED, Fault.BAD_REPLY}
_MOST_OF_A_PACK = 1024


def pinned(subject: Subject) -> str:
    """Compare what one client and a new one are told."""
    for whose, pin in (("later", subject.api.describe()), ("a new client", _new_pin(subject))):
        if pin != subject.pin:
            raise NotKeptError(f"{whose}, the model is {pin.digest}, at first it was {subject.pin.digest}")
    return f"{len(subject.pin.labels)} labels, {subject.pin.digest[:19]}"


def counted(subject: Subject) -> str:
    """Send requests of one image and more, up to all of them."""
    sizes = sorted({1, 2, 3, len(subject.images)})
    for size in sizes:
        answers = subject.answers(subject.images[:size])
        if len(answers) != size:
            raise NotKeptError(f"{len(answers)} answers to {size} images")
    return f"requests of {', '.join(map(str, sizes))} images"


def in_order(subject: Subject) -> str:
    """Ask about each image alone, about all, and about all from the last to the first."""
    alone = [subject.alone(image) for image in subject.images]
    told = require_alike(subject.head, alone, subject.answers(), "in one request")
    backwards = subject.answers(list(reversed(subject.images)))
    require_alike(subject.head, alone, list(reversed(backwards)), "when their order is turned round")
    if not _tell_order(subject, alone):
        raise SkippedError(f"the {len(alone)} images have one answer: give different ones by --input")
    return told


def refused_alone(subject: Subject) -> str:
    """Put bytes that are no image between two images."""
    first, last = subject.images[0], subject.images[-1]
    expected = [subject.alone(first), subject.alone(last)]
    try:
        answers = subject.answers([first, garbage(first)["text"], last])
    except ApiFaultError as fault:
        _require_of_an_image(fault, "a request with one broken image")
        seen = f"the request fails, so that packs are halved ({_short(fault)})"
    else:
        if len(answers) != 3 or not answers[1].reason:  # noqa: PLR2004 (as many as were sent)
            raise NotKeptError("bytes that are no image got a prediction")
        require_alike(subject.head, expected, [answers[0], answers[2]], "beside a broken one")
        seen = f"told in its place: {answers[1].reason}"
    require_alike(subject.head, expected, subject.answers([first, last]), "after a broken one")
    return seen


def garbage_refused(subject: Subject) -> str:
    """Send each kind of broken file alone, and a good one after it."""
    good = subject.images[0]
    expected = subject.alone(good)
    seen: dict[str, list[str]] = {}
    for kind, data in garbage(good).items():
        try:
            answer = subject.alone(data)
        except ApiFaultError as fault:
            _require_of_an_image(fault, f"a file that is {kind}")
            told = f"fails the request ({_short(fault)})"
        else:
            # Some decoders fill in what a file lacks: that is the model's own choice.
            if not answer.reason and kind != "half of an image":
                raise NotKeptError(f"a file that is {kind} got a prediction: {subject.head.words(answer)}")
            told = answer.reason or "answered"
        seen.setdefault(told, []).append(kind)
        require_alike(subject.head, [expected], [subject.alone(good)], f"after a file that is {kind}")
    return "; ".join(f"{', '.join(kinds)}: {told}" for told, kinds in seen.items())


def too_large(subject: Subject) -> str:
    """Send the largest request that a run may send."""
    image = heavy()
    pack = [image] * max(1, min(_MOST_OF_A_PACK, subject.largest // len(image)))
    size = f"{len(pack) * len(image) / 2**20:.1f} MiB"
    try:
        answers = subject.answers(pack)
    except ApiFaultError as fault:
        if fault.fault is not Fault.TOO_LARGE:
            raise NotKeptError(f"{size} are not refused as too large, but: {fault}") from fault
        return f"{size} refused as too large ({_short(fault)}), so that packs are halved"
    require_alike(subject.head, [answers[0]] * len(pack), answers, "in one large request")
    return f"{size} answered"


def unknown(subject: Subject) -> str:
    """Ask about a model that is not there."""
    if not subject.names_models:
        raise SkippedError("requests of this backend do not name a model")
    try:
        pin = subject.connect(_NOTHING).describe()
    except UnknownModelError as error:
        return f"code {error.exit_code:d}"
    raise NotKeptError(f"it was described: {len(pin.labels)} labels, {pin.digest}")


CHECKS = (
    Check("pinned", "The model has the same digest and labels whenever it is asked about.", pinned),
    Check("counted", "There are as many answers as images.", counted),
    Check(
        "in order", "The answers of a pack are those of its images asked alone, in whatever order.", in_order
    ),
    Check(
        "refused alone",
        "A broken image costs its own answer, or its request; never a neighbour's.",
        refused_alone,
    ),
    Check(
        "garbage", "Bytes that are no image are refused, and the next request is answered.", garbage_refused
    ),
    Check("too large", "The largest request is answered, or refused as too large.", too_large),
    Check("unknown model", "A model that is not there is told at once.", unknown),
)
# These ask much of a server: `most` requests at once, and a restart in the middle of them.
UNDER_LOAD = (
    Check("at once", "Many requests at once change no answer; what is too much is put off.", at_once),
    Check("restart", "A restart under load costs time, and changes no answer.", restarted),
)


def _new_pin(subject: Subject) -> ModelPin:
    api = subject.connect(subject.pin.name)
    try:
        return api.describe()
    finally:
        api.close()


def _tell_order(subject: Subject, alone: Sequence[Answer]) -> bool:
    different = any(apart(subject.head, one, alone[0]) > TOLERANCE for one in alone)
    return different or len(set(alone)) == len(alone)


def _require_of_an_image(fault: ApiFaultError, what: str) -> None:
    if fault.fault not in _OF_AN_IMAGE:
        raise NotKeptError(f"{what} is taken for a server that is {fault.fault}: {fault}") from fault


def _short(fault: ApiFaultError) -> str:
    told = str(fault).partition(": ")[2]
    return told[:8].strip() if told.startswith("HTTP ") else str(fault.fault)
