import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

IMAGES = 2624
SECOND_RUN_SHARE = 0.5  # of the first one's time, on the same machine, however busy it is


def rows(run: Path) -> list[dict[str, str]]:
    """Read a run's product with nothing but the standard library."""
    with (run / "output" / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def verify(stack: Any, run: Path) -> subprocess.CompletedProcess[str]:
    """Prove a run's certificate again, by the command a person would use."""
    result: subprocess.CompletedProcess[str] = stack.cli(
        "verify", f"--runs-uri={run.parent}", f"--run-id={run.name}"
    )
    return result


def test_every_photograph_is_predicted_once_in_order(first: Any) -> None:
    """The CSV has one row per photograph, sorted by the bytes of its id, probabilities falling."""
    table = rows(first.run)
    ids = [row["image_id"].encode() for row in table]
    assert len(ids) == IMAGES
    assert ids == sorted(set(ids))
    for row in table:
        probabilities = [float(row[f"probability_{k}"]) for k in range(1, 5)]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["model"] == "solar-cells"
    labels = {row["label_1"] for row in table}
    assert labels == {"mono-sound", "mono-defective", "poly-sound", "poly-defective"}


def test_the_certificate_balances(first: Any) -> None:
    """Every listed photograph is predicted, failed or rejected; here all are predicted."""
    counts = json.loads((first.run / "output" / "certificate.json").read_text())["counts"]
    assert (counts["listed"], counts["predicted"], counts["failed"], counts["rejected"]) == (
        IMAGES,
        IMAGES,
        0,
        0,
    )


def test_the_demo_shows_what_a_newcomer_wants_to_see(first: Any) -> None:
    """First rows, certificate, accuracy, addresses and login are printed."""
    for wanted in (
        "image_id,sha256,label_1",
        "certificate: listed 2624",
        "accuracy",
        "login admin /",
        "Airflow",
    ):
        assert wanted in first.output, wanted


@pytest.mark.parametrize(
    "part", ["output/predictions.csv", "scores/shard-00000/*.parquet", "manifest/shard-00000.parquet"]
)
def test_verify_notices_any_changed_byte(stack: Any, first: Any, part: str) -> None:
    """The certificate holds as long as nothing changes; one flipped byte and it does not."""
    assert verify(stack, first.run).returncode == 0
    path = min(first.run.glob(part))
    original = path.read_bytes()
    middle = len(original) // 2
    try:
        path.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
        broken = verify(stack, first.run)
    finally:
        path.write_bytes(original)
    assert broken.returncode == 65, broken.stderr
    assert verify(stack, first.run).returncode == 0


def test_a_second_demo_is_quick_and_gives_the_same_bytes(stack: Any, first: Any) -> None:
    """With everything current a new run, cut into other shards, takes little time and changes no byte."""
    second = stack.demo("--shard-size=300")
    assert second.seconds < SECOND_RUN_SHARE * first.seconds
    assert second.run != first.run
    product = Path("output", "predictions.csv")
    assert (second.run / product).read_bytes() == (first.run / product).read_bytes()


def test_nothing_listens_beyond_loopback(stack: Any, first: Any) -> None:
    """Each listening socket of each process of the stack is bound to loopback."""
    assert first
    sockets = {Path(link).name for link in _sockets(stack.var)}
    listening = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    mine = [fields[1] for fields in listening if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets]
    assert len(mine) >= 5
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
    assert [address for address in mine if not address.startswith(loopback)] == []


def _sockets(var: Path) -> set[str]:
    found = set()
    sessions = {json.loads(path.read_text())["pid"] for path in var.glob("services/*.json")}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            session = int((process / "stat").read_text().rsplit(")", 1)[1].split()[3])
            if session in sessions:
                found |= {str(link.readlink()) for link in (process / "fd").iterdir()}
        except OSError:
            continue
    return found
