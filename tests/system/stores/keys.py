"""What becomes of an object whose key is odd, on a real server of each store's API.

`python -m tests.system.stores.keys` (in the environment of pipeline_image/) writes the table of
docs/how-to/object-stores.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError

import pyarrow as pa
import pyarrow.parquet as pq
from imagebatch.contracts.ids import sha256_hex

from tests.support.images import jpeg
from tests.support.model_server import ModelServer
from tests.support.store_servers import SERVERS, SeaweedFS, StoreServer
from tools.paths import ROOT, say

PAGE = ROOT / "docs" / "how-to" / "object-stores.md"
BEGIN, END = "<!-- begin keys -->\n", "<!-- end keys -->\n"
_MARKER = "marker.jpg/"
# Below the input `in`: what is odd about each, and the key.
KEYS = {
    "plain": "a.jpg",
    "a slash at its beginning": "/lead.jpg",
    "an empty part": "b//c.jpg",
    "the same with one slash": "b/c.jpg",
    "a hash": "x#1.jpg",
    "a hash and digits": "gen.jpg#17.jpg",
    "what looks percent-encoded": "100%25.jpg",
    "a bare percent sign": "100%.jpg",
    "a plus sign": "a+b.jpg",
    "a question mark": "what?.jpg",
    "a question mark and a version, as S3 writes it": "v.jpg?versionId=1.jpg",
    "the same as Azure writes it": "w.jpg?versionid=1.jpg",
    "the same as Google writes it": "g.jpg?generation=1.jpg",
    "spaces": " a  b .jpg",
    "square brackets": "[a].jpg",
    "braces": "{1,2}.jpg",
    "a star": "*.jpg",
    "a backslash": "back\\slash.jpg",
    "an ampersand and an equals sign": "a&b=c.jpg",
    "quotes": 'it\'s "quoted".jpg',
    "two colons": "b::c.jpg",
    "a tilde": "~.jpg",
    "letters beyond ASCII": "zelle-ü-猫.jpg",
    "a letter and its accent apart": "cafe\u0301.jpg",
    "1,000 characters": "/".join(["l" * 120] * 8)[:990] + "/l.jpg",
    "the part `.`": "./dot.jpg",
    "the same without": "dot.jpg",
    "the part `..`": "up/../dots.jpg",
    "a folder's marker (no bytes, a slash at its end)": "folder/",
    "such a marker with an image's name": _MARKER,
    "an object, and a prefix of the next one": "both.jpg",
    "below the one before": "both.jpg/inside.jpg",
}


def found(scheme: str, folder: Path) -> dict[str, str]:
    """Put every key into a store, list it as an input, and tell what became of each."""
    server = SeaweedFS(folder, signed=False) if scheme == "s3" else SERVERS[scheme](folder, durable=False)
    try:
        contents = {key: b"" if key.endswith("/") else jpeg(at) for at, key in enumerate(KEYS.values())}
        refused = {key: told for key, data in contents.items() if (told := _put(server, key, data))}
        there = set(server.keys("data"))
        rows, left_out = _listed(scheme, server, folder)
        return {
            key: refused.get(key)
            or (
                _told(f"{scheme}://data/in/{key}", data, rows, left_out)
                if f"in/{key}" in there
                else _folded(key, there)
            )
            for key, data in contents.items()
        }
    finally:
        server.close()


def _put(server: StoreServer, key: str, data: bytes) -> str:
    try:
        server.put(f"data/in/{key}", data)
    except HTTPError as error:
        return f"the server refuses it ({error.code})"
    return ""


def _folded(key: str, there: set[str]) -> str:
    like = [
        name for name in there if name.replace("/", "").endswith(key.replace("./", "").replace("/", "")[-8:])
    ]
    return f"the server keeps it under another key{' (`' + min(like) + '`)' if like else ''}"


def _listed(scheme: str, server: StoreServer, folder: Path) -> tuple[list[dict[str, object]], dict[str, str]]:
    """The rows of a preprocess over the keys; and what it left out, by name."""
    with ModelServer() as model:
        environment = {**os.environ, **server.environment(), "IMAGEBATCH_API_URL": model.url}
        argv = [
            sys.executable,
            "-m",
            "imagebatch",
            "preprocess",
            "--run-id",
            "r",
            "--runs-uri",
            str(folder / "local"),
        ]
        done = subprocess.run(
            [*argv, "--input", f"{scheme}://data/in"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{server.product}: {done.returncode}: {done.stderr[-500:]}")
    run = folder / "local" / "r"
    tables = [pq.read_table(path) for path in sorted(run.glob("manifest/*.parquet"))]
    left_out: dict[str, str] = {}
    for path in run.glob("left_out/*.csv"):
        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\r\n")[1:]
        left_out |= {name: reason for name, reason, _ in (line.rsplit(",", 2) for line in lines if line)}
    return pa.concat_tables(tables).to_pylist(), left_out


def _told(uri: str, data: bytes, rows: list[dict[str, object]], left_out: Mapping[str, str]) -> str:
    """What became of one key."""
    mine = [row for row in rows if row["uri"] == uri]
    same = [row for row in rows if row["sha256"] == sha256_hex(data)]
    name = uri.partition("/in/")[2]
    if len(mine) == 1 and mine[0]["reason"]:
        return f"rejected, `{mine[0]['reason']}`"
    if len(mine) == 1 and same == mine:
        return "scored"
    if not mine and not same and name in left_out:
        return f"left out, `{left_out[name]}`"
    return f"WRONG: {len(mine)} rows of this key, {len(same)} of its bytes"


def passage(outcomes: Mapping[str, Mapping[str, str]]) -> str:
    """The table of the page."""
    head = [f"{SERVERS[scheme].product} (`{scheme}://`)" for scheme in outcomes]
    lines = [f"| key | below the input | {' | '.join(head)} |", f"|---|---|{'---|' * len(head)}"]
    for what, key in KEYS.items():
        shown = key if len(key) < 40 else f"{key[:12]}…{key[-6:]}"
        shown = json.dumps(shown, ensure_ascii=False)[1:-1].replace("|", "\\|")
        cells = [outcomes[scheme][key] for scheme in outcomes]
        lines.append(f"| {what} | `{shown}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def published(scheme: str) -> dict[str, str]:
    """What the page says of a store, by what is odd about the key."""
    _, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    rows = [line.strip("| \n").split(" | ") for line in rest.partition(END)[0].splitlines()[2:]]
    at = 2 + list(SERVERS).index(scheme)
    return {row[0]: row[at] for row in rows}


def main() -> int:
    """Write the table."""
    with tempfile.TemporaryDirectory(prefix="imagebatch-keys-") as folder:
        outcomes = {scheme: found(scheme, Path(folder) / scheme) for scheme in SERVERS}
    text = passage(outcomes)
    say(text)
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}", "utf-8")
    return int("WRONG" in text)


if __name__ == "__main__":
    sys.exit(main())
