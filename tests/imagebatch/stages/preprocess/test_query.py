"""A query of a database as a list."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.calls import Call
from tools.loopback import free_ports


@pytest.fixture
def database(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "names.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table photo (id integer, place text, site text, price real, raw blob)")
        connection.executemany(
            "insert into photo values (?, ?, ?, ?, x'ff')",
            [(at, f"{images}/{at:03}.jpg", None if at == 1 else "Köln", at / 4) for at in (1, 2, 4)],
        )
    connection.close()
    monkeypatch.setenv("IMAGEBATCH_DATABASE_URL", f"sqlite:///{path}")
    return path


def test_a_query_names_images(call: Call, database: Path, images: Path, runs: Path) -> None:
    """Its columns are a list's; values are text; and where the database is, nobody is told."""
    query = "select place as uri, id as image_id, site, price from photo where id < 4"
    outcome = call(
        "preprocess", "--run-id", "r", "--query", query, "--allowed-roots", images, "--carry", "all"
    )
    assert (outcome.last["accepted"], outcome.last["rejected"]) == (2, 0), outcome.err
    rows = pq.read_table(runs / "r/listing.parquet").to_pylist()
    assert [list(row.values()) for row in rows] == [
        ["1", f"file://{images}/001.jpg", "", "0.25"],
        ["2", f"file://{images}/002.jpg", "Köln", "0.5"],
    ]
    asked = json.loads((runs / "r/run.json").read_bytes())
    assert asked["query"] == query
    written = [path.read_bytes() for path in (runs / "r").rglob("*") if path.is_file()]
    assert not any(database.name.encode() in data for data in written)


def test_queries_that_cannot_be(
    call: Call, database: Path, images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong statement, column, row or address: one line, the right code, and never the password."""
    assert database.exists()
    roots = ("--allowed-roots", images)
    (port,) = free_ports(1)
    away = f"postgresql+psycopg2://me:secret@127.0.0.1:{port}/x"
    for query, options, url, code, text in (
        ("select place as uri from photo", (), "", 2, "--query wants --allowed-roots"),
        ("select place as uri from photo", roots, " ", 78, "no address of a database"),
        ("select place as uri from photo", roots, "nosuch://me:secret@x", 78, "no address of a database"),
        ("select place as uri from photo", roots, away, 78, "install the driver"),
        ("select place as uri from photo", roots, "sqlite:////none/x.db", 74, "does not answer"),
        ("select place from photo", roots, "", 65, "no column uri; it has place"),
        ("select missing from photo", roots, "", 78, "no such column"),
        (
            "select place as uri, site as image_id from photo",
            roots,
            "",
            65,
            "row 1: no value in column image_id",
        ),
        ("select 'x.jpg' as uri", roots, "", 65, "row 1: x.jpg lies nowhere"),
        ("select raw as uri from photo", roots, "", 65, "row 1: bytes where text is wanted"),
        ("select ':a' as uri, :b as image_id", roots, "", 78, "write \\: for a colon"),
        ("create table other (id integer)", roots, "", 65, "it gives no rows"),
        ("select place as uri from photo where id = 9", roots, "", 65, "no image in select place"),
    ):
        with monkeypatch.context() as changed:
            if url:
                changed.setenv("IMAGEBATCH_DATABASE_URL", url)
            outcome = call("preprocess", "--run-id", "r", "--query", query, *options)
        assert (outcome.code, text in outcome.err) == (code, True), (query, outcome.err)
        assert "secret" not in outcome.err
    monkeypatch.delenv("IMAGEBATCH_DATABASE_URL")
    outcome = call("preprocess", "--run-id", "r", "--query", "select 1 as uri", *roots)
    assert (outcome.code, "IMAGEBATCH_DATABASE_URL is not set" in outcome.err) == (78, True)
    assert not (runs / "r/run.json").exists()
