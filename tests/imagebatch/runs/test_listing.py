"""A listing and its manifests, read with suspicion."""

from pathlib import Path

from imagebatch.contracts.layout import LISTING, manifest_path
from imagebatch.errors import NotProvenError
from imagebatch.runs.folder import open_run
from imagebatch.runs.listing import open_listing

from tests.support.calls import Call


def test_a_flipped_bit_of_a_listing_or_manifest_is_told(call: Call, images: Path, runs: Path) -> None:
    """One bit flipped at every byte, in turn: the same rows are read, or the file is named; nothing else."""
    assert call("preprocess", "--run-id", "r", "--input", images, "--limit", 8).code == 0
    run = open_run(str(runs), "r")
    with open_listing(run) as listing:
        rows = listing.manifest(0).drop_columns("frames").to_pylist()
    told = 0
    for path in (LISTING, manifest_path(0)):
        whole = (runs / "r" / path).read_bytes()
        for at in range(len(whole)):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << at % 8
            (runs / "r" / path).write_bytes(damaged)
            try:
                with open_listing(run) as listing:
                    found = listing.manifest(0)
                assert found.select(list(rows[0])).to_pylist() == rows, (path, at)
            except NotProvenError:
                told += 1
        (runs / "r" / path).write_bytes(whole)
    assert told > 1000
