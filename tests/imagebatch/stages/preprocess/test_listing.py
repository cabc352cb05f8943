"""Sorting in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagebatch.contracts.rows import LISTING_SCHEMA
from imagebatch.errors import DataRefusedError
from imagebatch.stages.preprocess.listing import limited, shards_of, sorted_rows


@given(st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), max_size=60), st.integers(1, 9))
def test_sorts_as_bytes_whatever_the_chunk(names: set[str], chunk: int) -> None:
    """Spilling to disk gives the order of the ids' bytes, and every row once."""
    rows = [(name, f"file:///{name}") for name in names]
    found = list(sorted_rows(rows, chunk_rows=chunk))
    assert [row[0].encode() for row in found] == sorted(name.encode() for name in names)
    assert set(found) == set(rows)


@pytest.mark.parametrize("chunk", [2, 100])
def test_a_double_id_is_refused(chunk: int) -> None:
    """Two images with one id cannot both have a row: the run does not start."""
    rows = [("b", "1"), ("a", "2"), ("c", "3"), ("b", "4")]
    with pytest.raises(DataRefusedError, match="image_id b occurs twice"):
        list(sorted_rows(rows, chunk_rows=chunk))


def test_limit_and_shards() -> None:
    """The first rows by id, cut into shards of the size asked for."""
    rows = sorted_rows([(str(number), "u") for number in range(10)])
    shards = list(shards_of(limited(rows, 7), 3, LISTING_SCHEMA))
    assert [shard.num_rows for shard in shards] == [3, 3, 1]
    assert shards[2].column(0).to_pylist() == ["6"]
