"""Identifiers, allowances and the pinned public surface."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagebatch.contracts import ids, layout, records, rows
from imagebatch.contracts.allowance import allowed_failures
from imagebatch.errors import ExitCode
from imagebatch.runs import output_csv


@given(st.binary(max_size=300))
def test_encoded_id_gives_the_name_back(name: bytes) -> None:
    """Any bytes that a file system allows survive the round trip."""
    assert ids.decode_id(ids.encode_id(name)) == name


@given(st.binary(max_size=300))
def test_encoded_id_is_harmless(name: bytes) -> None:
    """No control character, no formula, one line, valid UTF-8, whatever the name."""
    image_id = ids.encode_id(name)
    assert image_id.isprintable() or "\u3000" in image_id or image_id.encode().decode() == image_id
    assert not any(ord(char) < 32 or ord(char) == 127 for char in image_id)
    assert image_id[:1] not in {"=", "+", "-", "@"}
    assert list(csv.reader(io.StringIO(f"{image_id}".replace('"', '""').join('""'), newline=""))) == [
        [image_id]
    ]


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        (b"a/b c.jpg", "a/b c.jpg"),
        (b"=1+1.jpg", "%3D1+1.jpg"),
        (b"100%.png", "100%25.png"),
        (b"two\nlines.png", "two%0Alines.png"),
        (b"\xff.png", "%FF.png"),
        ("zelle-ü.png".encode(), "zelle-ü.png"),
        ("\u202egnp.exe".encode(), "%E2%80%AEgnp.exe"),
    ],
)
def test_encoding_is_the_documented_one(name: bytes, image_id: str) -> None:
    """The examples of docs/reference/run-layout.md's rule."""
    assert ids.encode_id(name) == image_id


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("Köln, 100%", "Köln, 100%"),
        ("-5,5", "-5,5"),
        ("+1e-3%", "+1e-3%"),
        ("-1+cmd", "%2D1+cmd"),
        ("=1+1", "%3D1+1"),
        ("@x", "%40x"),
        ("5%\n", "5%25%0A"),
        ("", ""),
    ],
)
def test_a_carried_cell_is_harmless(text: str, cell: str) -> None:
    """No formula and no second line; numbers and ordinary text stay as they are."""
    assert ids.encode_cell(text) == cell


@given(st.lists(st.binary(min_size=1, max_size=8), unique=True))
def test_different_names_have_different_ids(names: list[bytes]) -> None:
    """No two files can share a row."""
    assert len({ids.encode_id(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("allowance", "total", "allowed"),
    [("5%", 100, 5), ("5%", 19, 0), ("20", 7, 20), ("0", 9, 0), ("100%", 3, 3), ("0.1%", 2999, 2)],
)
def test_allowed_failures(allowance: str, total: int, allowed: int) -> None:
    """A count stays a count; a share is rounded down."""
    assert allowed_failures(allowance, total) == allowed


@given(st.integers(0, 1000), st.integers(0, 10**7))
def test_a_share_of_failures_is_exact(tenths: int, total: int) -> None:
    """Every share with one decimal is what whole numbers give, also 29 % of 100."""
    assert allowed_failures(f"{tenths / 10}%", total) == tenths * total // 1000


def test_public_surface_is_pinned() -> None:
    """Changing any of these is a new protocol version, never an accident."""
    assert records.PROTOCOL_VERSION == 1
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "UNFORESEEN": 1,
        "USAGE": 2,
        "DATA_REFUSED": 65,
        "UNAVAILABLE": 69,
        "STORAGE": 74,
        "HELD": 75,
        "CONFIGURATION": 78,
        "NOTHING_TO_DO": 99,
    }
    description = records.RunDescription.model_construct(
        model=records.ModelPin(name="m", version="", digest="", labels=["a", "b"]), top_k=2, class_index=False
    )
    assert output_csv.prediction_schema(description).names == [
        "image_id",
        "sha256",
        "label_1",
        "label_2",
        "probability_1",
        "probability_2",
        "model",
        "model_version",
        "model_digest",
    ]
    description = description.model_copy(update={"class_index": True})
    own = output_csv.prediction_schema(description).names
    assert own[9:] == ["class_index_1", "class_index_2"]
    assert output_csv.prediction_schema(description, ["a"]).names == [*own, "a"]
    assert all(map(output_csv.is_own_column, own))
    marked = description.model_copy(update={"review_below": 0.8})
    assert output_csv.prediction_schema(marked, ["a"]).names == [*own, "review", "a"]
    assert output_csv.FAILURE_COLUMNS == ("image_id", "uri", "stage", "reason", "detail")
    assert layout.PLAN == "manifest/_DONE.json"
    assert layout.manifest_path(3) == "manifest/shard-00003.parquet"
    assert layout.done_path(3) == "scores/shard-00003/_DONE.json"
    assert (layout.PREDICTIONS_CSV, layout.SUCCESS) == ("output/predictions.csv", "_SUCCESS")


def test_typed_rows_have_the_columns_of_their_tables() -> None:
    """A column that is added or renamed on one side only would be a typo that no tool finds."""
    paged = [field.name for field in rows.PAGE_FIELDS]
    assert rows.listing_schema([]).names == rows.LISTING_SCHEMA.names
    assert list(rows.ListedRow.__annotations__) == rows.listing_schema([], paged=True).names
    assert rows.ManifestRow.__annotations__.keys() == set(rows.manifest_schema(paged=True).names)
    assert rows.manifest_schema(paged=False).names == rows.manifest_schema(paged=True).names[: -len(paged)]
    assert rows.AskedRow.__annotations__.keys() == {*rows.ASKED_COLUMNS, *paged, "embed"}
    assert list(rows.ScoreRow.__annotations__) == [*rows.SCORES_SCHEMA.names, "endpoint"]
