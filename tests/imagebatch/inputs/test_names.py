"""What a name in a list means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from imagebatch.contracts.records import Reason
from imagebatch.inputs.names import folder_of, resolved, to_uri
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError


def refusal(source: ImageSource, uri: str) -> tuple[Reason, str]:
    with pytest.raises(ImageUnavailableError) as caught:
        source.read(uri)
    return caught.value.reason, caught.value.detail


def test_a_name_means_what_it_means_to_every_other_tool(tmp_path: Path) -> None:
    """Beside a list, `../images/x.jpg` is the file that `open` finds there, linked folders or not."""
    for folder in ("images", "lists/images", "far/lists", "far/images"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.jpg").write_bytes(folder.encode())
    (tmp_path / "linked").symlink_to("far/lists")
    (tmp_path / "lists/100% a?b#c\\d.jpg").write_bytes(b"odd")
    source = ImageSource([str(tmp_path)], 100)
    for folder in ("lists", "linked"):
        listed = tmp_path / folder
        for name in ("../images/x.jpg", "./../images/x.jpg", "100% a?b#c\\d.jpg", "images/x.jpg", "x.jpg"):
            path = os.path.join(listed, name)  # noqa: PTH118 (what `open` is given)
            if os.path.exists(path):  # noqa: PTH110 (what `open` finds)
                with open(path, "rb") as stream:  # noqa: PTH123 (pathlib would change the name)
                    assert source.read(resolved(name, to_uri(str(listed)))) == stream.read()
    assert source.read(resolved("../images/x.jpg", to_uri(str(tmp_path / "linked")))) == b"far/images"


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("../images/x.jpg", "s3://bucket/images/x.jpg"),
        ("a%20b c.jpg", "s3://bucket/lists/a%20b c.jpg"),
        ("./a//b.jpg", "s3://bucket/lists/a//b.jpg"),
        ("a?b#c.jpg", "s3://bucket/lists/a?b#c.jpg"),
        ("../../x.jpg", "s3://bucket/../x.jpg"),
        ("gs://other/x.jpg", "gs://other/x.jpg"),
        ("/data/a b.jpg", "file:///data/a%20b.jpg"),
        ("file:/data/x.jpg", "file:///data/x.jpg"),
        ("C://photos/x.jpg", "s3://bucket/lists/C://photos/x.jpg"),
    ],
)
def test_a_name_in_a_bucket_is_a_key(name: str, uri: str) -> None:
    """Nothing is decoded or encoded; `..` takes a part of the key away, and is refused above the bucket."""
    assert resolved(name, folder_of("s3://bucket/lists/tonight.csv")) == uri


def test_the_folder_of_a_list() -> None:
    """A list that is a folder lies beside its images, as a file does."""
    assert folder_of("s3://bucket/spark.parquet/") == "s3://bucket"
    assert folder_of("/data/a%b/list.csv") == "file:///data/a%25b"


def test_names_that_no_file_has_are_explained(tmp_path: Path) -> None:
    """Paths of Windows, spaces, zero bytes, brackets, another machine: a reason, and no traceback."""
    source = ImageSource([str(tmp_path), "s3://bucket"], 100)
    folder = to_uri(str(tmp_path))
    for name, reason, text in (
        ("..\\images\\x.jpg", Reason.NOT_FOUND, "path of Windows: write /"),
        ("C:\\photos\\x.jpg", Reason.NOT_FOUND, "path of Windows"),
        ("C:/photos/x.jpg", Reason.NOT_FOUND, "path of Windows"),
        ("x.jpg ", Reason.NOT_FOUND, "ends with a space"),
        ("~/x.jpg", Reason.NOT_FOUND, "home folder"),
        ("a\0b.jpg", Reason.NOT_FOUND, "zero byte"),
        (f"file://{tmp_path}/%00.jpg", Reason.NOT_FOUND, "zero byte"),
        ("file://data/x.jpg", Reason.NOT_FOUND, "three slashes"),
        ("file://[/x.jpg", Reason.NOT_FOUND, "three slashes"),
        ("s3://[bucket/x.jpg", Reason.OUTSIDE_ALLOWED_ROOTS, "--allowed-roots"),
        ("https://[/x.jpg", Reason.OUTSIDE_ALLOWED_ROOTS, "--allowed-roots"),
        ("s3://bucket/../x.jpg", Reason.OUTSIDE_ALLOWED_ROOTS, "--allowed-roots"),
        ("s3://bucket/x.jpg?versionId=3", Reason.UNREADABLE, "?versionId="),
        ("nosuch://x/y.jpg", Reason.OUTSIDE_ALLOWED_ROOTS, "--allowed-roots"),
    ):
        found = refusal(source, resolved(name, folder))
        assert (found[0], text in found[1]) == (reason, True), (name, found)


def test_one_store_has_several_schemes() -> None:
    """What lies in `s3://bucket` lies in `s3a://bucket`."""
    assert ImageSource(["s3a://bucket"], 1).allows("s3://bucket/x.jpg")
    assert ImageSource(["abfs://c"], 1).allows("az://c/x.jpg")
    assert not ImageSource(["s3a://bucket"], 1).allows("gs://bucket/x.jpg")
