"""Requests as TorchServe hands them over, in and out."""

import base64
import json
from typing import Any

import pytest
from imagebatch_model import Settings
from imagebatch_pixels import ImageError
from imagebatch_wire import Request, RequestError, dump, parse

SETTINGS = Settings(top_k=3, max_images=4)
JSON = {"Content-Type": "application/json"}


def instances(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"body": {"instances": [{"id": name, "b64": content} for name, content in pairs]}}


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "IMAGE/PNG", ""])
def test_one_image_as_the_body(kind: str) -> None:
    """Whatever its type is called, a body of bytes is one image, and its failure is the request's."""
    request = parse({"body": bytearray(b"abc")}, {"Content-Type": kind}, SETTINGS)
    assert request == Request((("0", b"abc"),), 3, single=True)


def test_multipart_keeps_ids_and_order() -> None:
    """Part names are the ids, also those that TorchServe uses itself, and text parts get their bytes back."""
    row = {"z": bytearray(b"1"), "body": bytearray(b"2"), "data": "tëxt"}
    request = parse(row, {"content-type": "multipart/form-data; boundary=x"}, SETTINGS)
    assert request.images == (("z", b"1"), ("body", b"2"), ("data", "tëxt".encode()))
    assert not request.single


MIXED = {"content-type": "multipart/mixed; boundary=x-1"}


def mixed(*images: tuple[str, bytes], before: bytes = b"", after: bytes = b"--\r\n") -> dict[str, bytearray]:
    """A body of parts as TorchServe hands it on: unread."""
    head = b'\r\nContent-Type: image/png\r\ncontent-disposition: attachment; filename="f"; name="%s"\r\n\r\n'
    parts = b"\r\n".join(b"--x-1" + head % name.encode() + data for name, data in images)
    return {"body": bytearray(before + parts + b"\r\n--x-1" + after)}


@pytest.mark.parametrize("before", [b"", b"a preamble that nobody reads\r\n"])
@pytest.mark.parametrize("boundary", ["x-1", '"x-1"; charset=binary'])
def test_mixed_parts_keep_their_bytes(before: bytes, boundary: str) -> None:
    """Every byte of every part arrives, also where it looks like a delimiter, and names are not rewritten."""
    images = (("1=:, \u00fc", b"\r\n--x-"), ("b", b""), ("c", b"\r\n\r\n\0" * 99), ("d", b"\n--x-1--\r\n"))
    request = parse(
        mixed(*images, before=before), {"content-type": f"Multipart/Mixed; boundary={boundary}"}, SETTINGS
    )
    assert request.images == images
    assert not request.single


@pytest.mark.parametrize(
    ("body", "headers", "complaint"),
    [
        (mixed(("a", b"1"), after=b""), MIXED, "ends early"),
        ({"body": bytearray(mixed(("a", b"1"))["body"][:40])}, MIXED, "ends early"),
        (mixed(("a", b"1")), {"content-type": "multipart/mixed"}, "boundary"),
        (mixed(("a", b"1")), {"content-type": "multipart/mixed; boundary=y"}, "boundary"),
        ({"body": bytearray()}, MIXED, "boundary"),
        ({"body": bytearray(b"--x-1\r\n\r\n1\r\n--x-1--\r\n")}, MIXED, "name"),
        ({"body": bytearray(b"--x-1--\r\n")}, MIXED, "no images"),
        (mixed(("a", b"1"), ("a", b"2")), MIXED, "ids must be unique"),
    ],
)
def test_a_malformed_mixed_body_is_refused(
    body: dict[str, bytearray], headers: dict[str, str], complaint: str
) -> None:
    """What is cut, unnamed or empty is told as such, and no part of it is scored."""
    with pytest.raises(RequestError, match=complaint):
        parse(body, headers, SETTINGS)


def test_a_json_part_of_a_multipart_body_is_no_image() -> None:
    """TorchServe parsed it, so its bytes are gone: that one image fails, the others stay."""
    row = {"a": {"some": "json"}, "b": bytearray(b"1")}
    (_, first), (_, second) = parse(row, {"content-type": "multipart/form-data; boundary=x"}, SETTINGS).images
    assert isinstance(first, ImageError)
    assert first.reason == "not_an_image"
    assert second == b"1"


@pytest.mark.parametrize("encoded", [False, True])
def test_json_instances(*, encoded: bool) -> None:
    """Instances are decoded whether TorchServe parsed the body or left it as bytes."""
    row = instances(("a", base64.b64encode(b"one").decode()), ("b", ""))
    if encoded:
        row = {"body": bytearray(json.dumps(row["body"]).encode())}
    request = parse(row, {"content-type": "application/json; charset=utf-8"}, SETTINGS)
    assert request == Request((("a", b"one"), ("b", b"")), 3)


def test_bad_base64_costs_one_image() -> None:
    """One instance that is not base64 is one failed image."""
    (_, first), (_, second) = parse(instances(("a", "%%%"), ("b", "YWJj")), JSON, SETTINGS).images
    assert isinstance(first, ImageError)
    assert second == b"abc"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [(None, set()), ("true", {0, 1, 2}), ("True", {0, 1, 2}), ("1", {1}), ("2,0", {0, 2})],
)
def test_embeddings_are_asked_for_by_position(header: str | None, wanted: set[int]) -> None:
    """All images of a request, or those at some positions, whatever the form of the request."""
    asked = {} if header is None else {"X-Embeddings": header}
    three = (("a", b"1"), ("b", b"2"), ("c", b"3"))
    encoded = instances(*((name, base64.b64encode(data).decode()) for name, data in three))
    form = {"content-type": "multipart/form-data; boundary=x"}
    for row, headers in ((mixed(*three), MIXED), (dict(three), form), (encoded, JSON)):
        assert parse(row, headers | asked, SETTINGS).embeddings == wanted


def test_pages_are_asked_for_image_by_image() -> None:
    """A number for each image, 0 for the model's own page; without the header, that of every image."""
    three = mixed(("a", b"1"), ("b", b"2"), ("c", b"3"))
    assert parse(three, MIXED | {"X-Pages": "0,12,1"}, SETTINGS).pages == {1: 12, 2: 1}
    assert parse(three, MIXED, SETTINGS).pages == {}
    both = MIXED | {"X-Pages": "3,3,3", "X-Embeddings": "2"}
    assert parse(three, both, SETTINGS).embeddings == {2}
    assert parse({"body": b"1"}, {"content-type": "image/tiff", "x-pages": "7"}, SETTINGS).pages == {0: 7}


@pytest.mark.parametrize("header", ["", "1,2", "all", "-1", "1.5", "1,", "9" * 5000, "\u0661"])
def test_pages_of_other_images_are_refused(header: str) -> None:
    """What is not one number for each image of the request is told, and nothing is scored."""
    with pytest.raises(RequestError, match="X-Pages must be a number for each image"):
        parse({"body": b"1"}, {"content-type": "image/tiff", "x-pages": header}, SETTINGS)


@pytest.mark.parametrize("header", ["", "yes", "false", "1", "0,1", "-1", "0,", "0 ,0", "9" * 5000, "\u0660"])
def test_embeddings_of_no_image_are_refused(header: str) -> None:
    """What is neither true nor a position of this request's one image is told, and nothing is scored."""
    with pytest.raises(RequestError, match="X-Embeddings must be true, or positions"):
        parse({"body": b"1"}, {"content-type": "image/png", "x-embeddings": header}, SETTINGS)


@pytest.mark.parametrize(
    ("row", "headers"), [({"body": {"describe": True}}, JSON), ({"body": bytearray()}, {"describe": "True"})]
)
def test_describe(row: dict[str, Any], headers: dict[str, str]) -> None:
    """Both ways to ask for the description are understood."""
    assert parse(row, headers, SETTINGS).describe


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"body": bytearray(b"{")}, "the body is not JSON"),
        ({"body": bytearray(b"\xff\xfe\xff")}, "the body is not JSON"),
        ({"body": bytearray(b"[" * 100_000)}, "the body is not JSON"),
        ({"body": [1]}, 'the body must be {"instances"'),
        ({"body": {}}, 'the body must have "instances"'),
        ({"body": {"instances": {}}}, 'the body must have "instances"'),
        ({"body": {"instances": []}}, "the request has no images"),
        ({"body": {"instances": ["x"]}}, "instances[0] must be"),
        (instances(("a", ""), (1, "")), "instances[1] must be"),
        (instances(("a", None)), "instances[0] must be"),
        (instances(("a", ""), ("a", "")), "ids must be unique"),
        (instances(*((str(i), "") for i in range(5))), "5 images in one request, at most 4 are accepted"),
        ({}, "the request has no body"),
    ],
)
def test_a_malformed_request_is_answered_with_one_line(row: dict[str, Any], message: str) -> None:
    """Each mistake is named, in one bounded line."""
    with pytest.raises(RequestError) as caught:
        parse(row, JSON, SETTINGS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 200


def test_an_empty_multipart_body_is_malformed() -> None:
    """No part, no image, no silent success."""
    with pytest.raises(RequestError, match="the request has no images"):
        parse({}, {"content-type": "multipart/form-data; boundary=x"}, SETTINGS)


@pytest.mark.parametrize(("header", "expected"), [(None, 3), ("1", 1), ("100", 100)])
def test_top_k_comes_from_the_header(header: str | None, expected: int) -> None:
    """X-Top-K wins over the configuration, whatever its case."""
    headers = {} if header is None else {"x-TOP-k": header}
    assert parse({"body": b"a"}, headers, SETTINGS).top_k == expected


@pytest.mark.parametrize("header", ["0", "-1", "101", "1.5", "", "ten", "²", "1" * 5000])
def test_a_wrong_top_k_is_refused(header: str) -> None:
    """A number of labels that makes no sense is the caller's mistake."""
    with pytest.raises(RequestError, match="X-Top-K must be a whole number from 1 to 100"):
        parse({"body": b"a"}, {"X-Top-K": header}, SETTINGS)


def test_a_part_cannot_pose_as_a_header() -> None:
    """TorchServe mixes part names into the headers; they have no say there."""
    headers = {"X-Top-K": {"content-type": "text/plain"}, "content-type": "multipart/form-data; boundary=x"}
    assert parse({"X-Top-K": bytearray(b"1")}, headers, SETTINGS).top_k == 3


def test_replies_are_one_line_of_utf_8() -> None:
    """Names survive as they are, and a value that JSON does not know is an error."""
    assert dump({"id": "ä\n", "p": [0.1]}) == '{"id":"ä\\n","p":[0.1]}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        dump({"p": float("nan")})
