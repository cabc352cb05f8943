"""Lists as people have them: the right rows, or one line that says which row and what to do."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imagebatch.errors import ConfigurationError, DataRefusedError, ImagebatchError, InputNotFoundError
from imagebatch.inputs.source import ImageSource
from imagebatch.stages.preprocess.lists import ImageList, asked_columns

from tests.support.calls import Call
from tests.support.images import jpeg

NAMES = ["a.jpg", "b c.jpg", 'd"e.jpg', "f,g;h|i.jpg", "zelle-ü.jpg"]


def entries(
    path: Path | str, *, uri: str = "", image_id: str = "", carry: str = "", encoding: str = ""
) -> list[tuple[str, ...]]:
    roots = [str(path).rsplit("/", 1)[0]]
    return list(ImageList(str(path), asked_columns(uri, image_id, carry), encoding, ImageSource(roots, 10)))


def ids(path: Path | str, **options: str) -> list[str]:
    return [row[0] for row in entries(path, **options)]


def refusal(path: Path | str, **options: str) -> str:
    with pytest.raises(DataRefusedError) as caught:
        entries(path, **options)
    return str(caught.value)


def written(path: Path, rows: list[list[str]], separator: str = ",", encoding: str = "utf-8") -> Path:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_of_any_usual_kind(tmp_path: Path, separator: str, encoding: str) -> None:
    """Every separator in every encoding that says what it is."""
    rows = [["note", "URI"], *([f"{number}\n{separator}", name] for number, name in enumerate(NAMES))]
    assert ids(written(tmp_path / "list.csv", rows, separator, encoding)) == NAMES


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [(".csv.gz", gzip.compress), (".csv.bz2", bz2.compress), (".txt.xz", lzma.compress), ("", gzip.compress)],
)
def test_packed(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    """What is packed is known by its first bytes; what is damaged is told."""
    path = tmp_path / f"list{suffix}"
    data = pack(b"uri\na.jpg\nb.jpg\n")
    path.write_bytes(data)
    assert ids(path) == ["a.jpg", "b.jpg"]
    path.write_bytes(data[:-5])
    assert "damaged" in refusal(path)


def test_names_alone(tmp_path: Path) -> None:
    """One name a line, as `find` prints them: quotes and separators are part of a name."""
    (tmp_path / "list.txt").write_bytes(
        "\r\n".join(["./x/a.jpg", *NAMES, "", "\xff".encode("latin-1").decode("latin-1")]).encode()
    )
    assert ids(tmp_path / "list.txt") == ["./x/a.jpg", *NAMES, "ÿ"]
    (tmp_path / "raw").write_bytes(b"/data/\xff.jpg\n")
    assert entries(tmp_path / "raw") == [("/data/%FF.jpg", "file:///data/%FF.jpg")]


def test_json_lines(tmp_path: Path) -> None:
    """Numbers keep their digits, keys may be missing, and a key is never found too late."""
    lines = [{"URI": "a.jpg", "image_id": 7}, {"URI": "b.jpg", "image_id": "é", "tag": ["x"], "ok": True}]
    path = tmp_path / "list.jsonl"
    path.write_text(
        "\n".join([*map(json.dumps, lines), '{"URI": "c.jpg", "image_id": 1.10, "tag": null}', ""])
    )
    assert [row[0] for row in entries(path)] == ["7", "é", "1.10"]
    assert [row[2:] for row in entries(path, carry="tag,ok")] == [("", ""), ('["x"]', "true"), ("", "")]
    path.write_text('{"uri": "a.jpg"}\n' * 200 + '{"uri": "b.jpg", "image_id": "1"}\n')
    assert "line 201 is the first with a key image_id" in refusal(path)
    path.write_text('{"uri": "a.jpg"}\n[1]\n')
    assert "line 2 is no JSON object" in refusal(path)
    path.write_text('{"uri": "\\ud800.jpg"}\n')
    assert "line 1" in refusal(path)
    path.write_text('{"uri": "a.jpg", "uri": "b.jpg"}\n')
    assert "line 1 is no JSON object: a key stands there twice" in refusal(path)


def test_parquet(tmp_path: Path) -> None:
    """With and without a suffix; only what is needed is read, and as text."""
    table = pa.table(
        {"uri": NAMES, "image_id": list(range(5)), "raw": [b"\xff"] * 5, "day": [None, 1.5, 2.0, 3.25, 4.0]}
    )
    for name in ("list.parquet", "list"):
        pq.write_table(table, tmp_path / name)
        assert ids(tmp_path / name) == ["0", "1", "2", "3", "4"]
        assert [row[2] for row in entries(tmp_path / name, carry="day")] == ["", "1.5", "2", "3.25", "4"]
    assert "rows 1 to 5: column raw of type binary" in refusal(tmp_path / "list", carry="raw")
    data = (tmp_path / "list").read_bytes()
    (tmp_path / "list").write_bytes(data[: len(data) // 2])
    assert "not a readable Parquet file" in refusal(tmp_path / "list")


def test_what_a_job_writes_into_a_folder(tmp_path: Path) -> None:
    """Spark's and Hive's parts in order; folders' names are columns; images lie beside the folder."""
    folder = tmp_path / "list.parquet"
    for day, names in (("2026-01-30", NAMES[:2]), ("2026-01-31", NAMES[2:])):
        (folder / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"uri": names}), folder / f"day={day}" / "part-0.snappy.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part.crc").write_bytes(b"\1")
    found = entries(folder, carry="day")
    assert [(row[0], row[2]) for row in found] == [
        *((name, "2026-01-30") for name in NAMES[:2]),
        *((name, "2026-01-31") for name in NAMES[2:]),
    ]
    assert found[0][1] == f"file://{tmp_path}/a.jpg"
    assert entries(f"{folder}/", carry="day") == found


def test_folders_that_are_no_list(tmp_path: Path) -> None:
    """A table with a history, a job under way, an empty folder, another kind of part: never 'try again'."""
    for names, text in (
        (["_delta_log/0.json", "part-0.parquet"], "a Delta table"),
        (["metadata/v1.metadata.json", "data/0.parquet"], "an Iceberg table".replace("an ", "a ")),
        (["_temporary/0/part-0.parquet"], "still writing"),
        (["_SUCCESS"], "without a part"),
        (["part-0.parquet"], "part-0.parquet: "),
    ):
        folder = tmp_path / text.replace(" ", "-").replace(":", "")
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"PAR1 but no more")
        assert text in refusal(folder)
    (tmp_path / "led").mkdir()
    (tmp_path / "led/part-0.csv").symlink_to("/etc/passwd")
    with pytest.raises(ConfigurationError, match="outside the allowed roots"):
        list(ImageList(str(tmp_path / "led"), asked_columns("", "", ""), "", ImageSource([str(tmp_path)], 1)))


def test_spreadsheets(tmp_path: Path) -> None:
    """The sheet that names images; numbers as the spreadsheet shows them; its empty rows are none."""
    path = tmp_path / "list.xlsx"
    path.write_bytes(
        spreadsheet([["note"], ["x"]], [["uri", "image_id"], ["a.jpg", 7], ["", ""], ["b.jpg", 1.5]])
    )
    assert ids(path) == ["7", "1.5"]
    path.write_bytes(spreadsheet([["uri"], ["a.jpg"]], [["uri"], ["b.jpg"]]))
    assert "sheets One, Two all name images" in refusal(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "not a readable spreadsheet" in refusal(path) or "damaged" in refusal(path)


@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        ("uri;image_id\na.jpg;\n", {}, "line 2: no value in column image_id"),
        ("uri,x\na.jpg,1\n,2\n", {}, "line 3: no value in column uri"),
        ("uri,x\na.jpg\n", {}, "line 2 has 1 values where the header has 2"),
        ('uri,x\n"a.jpg,1\nb.jpg,2\n', {}, "the row that begins in line 2"),
        ("uri,uri\na,b\n", {}, "2 columns are named uri"),
        ("uri,URI\na,b\n", {"uri": "Uri"}, "2 columns are named uri and URI"),
        ("file_name,label\na,b\n", {}, "say --uri-column file_name"),
        (
            "file_name,label\na,b\n",
            {"uri": "label", "image_id": "id"},
            "no column id; it has file_name, label",
        ),
        ("/a/b.jpg\n/a/c.jpg\n", {}, "is the header missing"),
        ("", {}, "it is empty"),
        ("uri,a\nx,y\n", {"carry": "b"}, "no column b to carry"),
        ("uri,label_1\nx,y\n", {"carry": "all"}, "cannot be carried: predictions.csv has one"),
        ("uri,Model\nx,y\n", {"carry": "model"}, "cannot be carried"),
        ("uri,,a\nx,y,z\n", {"carry": "all"}, "has no name"),
        ("uri,a,A\nx,y,z\n", {"carry": "all"}, "two columns to carry are named A"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, options: dict[str, str], error: str) -> None:
    """One line with the row, the column and the remedy."""
    (tmp_path / "list.csv").write_text(text)
    assert error in refusal(tmp_path / "list.csv", **options)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """An encoding that does not say what it is, binary files, an archive: named, and never printed raw."""
    path = tmp_path / "list.csv"
    path.write_bytes("uri;ort\na.jpg;x\nü.jpg;Köln\n".encode("cp1252"))
    assert "line 3 is not UTF-8" in refusal(path)
    assert ids(path, encoding="cp1252") == ["a.jpg", "ü.jpg"]
    for content, text in (
        (os.urandom(64) + b"\0\0\1", "binary"),
        (archive(), "give an archive of images as --input"),
    ):
        path.write_bytes(content)
        message = refusal(path)
        assert text in message
        assert message.isascii()
    path.write_bytes(b"uri\n" + b"x" * (2 << 20))
    assert "line 2 is longer than" in refusal(path)


def test_excel_tells_its_separator(tmp_path: Path) -> None:
    """A first line `sep=;` is no header, and spaces around a column's name are not part of it."""
    (tmp_path / "list.csv").write_text("sep=;\r\n uri ; x\r\na,b.jpg;1\r\n;\r\n")
    assert ids(tmp_path / "list.csv") == ["a,b.jpg"]


def test_no_permission_gets_into_an_id(tmp_path: Path) -> None:
    """A signed address without an id of its own is known without its signature, in any column."""
    signed = "https://h.example/x.jpg?X-Amz-Credential=me&X-Amz-Signature=ab"
    written(tmp_path / "list.csv", [["uri", "link"], [signed, signed]])
    assert entries(tmp_path / "list.csv") == [("https://h.example/x.jpg", signed)]
    assert ids(tmp_path / "list.csv", image_id="link") == ["https://h.example/x.jpg"]
    assert entries(tmp_path / "list.csv", carry="uri,link")[0][2:] == ("https://h.example/x.jpg",) * 2


def test_lists_that_are_not_there(tmp_path: Path) -> None:
    """A missing list, a FIFO, another machine's, a scheme that nobody knows: 78 and what to do."""
    os.mkfifo(tmp_path / "fifo")
    for name in (
        tmp_path / "none.csv",
        tmp_path / "fifo",
        "file://lists/x.csv",
        "nosuch://x/y.csv",
        "memory://no/x.csv",
    ):
        with pytest.raises(ImagebatchError) as caught:
            entries(name)
        assert int(caught.value.exit_code) == 78, name
    with pytest.raises(InputNotFoundError, match="no such file"):
        entries("memory://no/x.csv")


def test_a_list_in_a_store() -> None:
    """Its names are keys beside it, and a folder of parts is a list there, too."""
    store = fsspec.filesystem("memory")
    store.pipe({"/lists-b/l/list.csv": b"uri\n../i/a%20b.jpg\n", "/lists-b/l/p/part-0.csv": b"uri\nx.jpg\n"})
    assert entries("memory://lists-b/l/list.csv") == [("../i/a%2520b.jpg", "memory://lists-b/i/a%20b.jpg")]
    assert entries("memory://lists-b/l/p") == [("x.jpg", "memory://lists-b/l/x.jpg")]


def test_one_line_for_each_refusal(call: Call, tmp_path: Path) -> None:
    """On the command line: the exit code of each kind, no traceback, and nothing about lists with --input."""
    (tmp_path / "x.jpg").write_bytes(jpeg(1))
    (tmp_path / "list.csv").write_text("uri,uri\nx.jpg,y\n")
    for arguments, code, text in (
        (("--manifest", tmp_path / "list.csv"), 65, "2 columns are named uri"),
        (("--manifest", tmp_path / "list.csv", "--list-encoding", "klingon"), 2, "no text encoding"),
        (("--manifest", tmp_path / "list.csv", "--carry", "all,x"), 78, "all takes every column"),
        (("--input", tmp_path, "--carry", "x"), 2, "--carry is about a list"),
    ):
        outcome = call("preprocess", "--run-id", "r", *arguments)
        assert (outcome.code, text in outcome.err) == (code, True), outcome.err
        assert outcome.err.count("imagebatch: ") == 1


def archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        packed.writestr("a.jpg", b"1")
    return data.getvalue()


def spreadsheet(*sheets: list[list[str | float]]) -> bytes:
    """Write an XLSX file with inline text, of the parts that a reader needs."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    names = ["One", "Two", "Three"][: len(sheets)]
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" '
        f'ContentType="{kinds}.sheet.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" Type='
        f'"{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{at}" r:id="r{at}"/>' for at, name in enumerate(names, 1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        + "".join(
            f'<Relationship Id="r{at}" Type="{office}/worksheet" Target="worksheets/sheet{at}.xml"/>'
            for at in range(1, len(sheets) + 1)
        )
        + "</Relationships>",
    }
    for at, rows in enumerate(sheets, 1):
        body = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
        parts[f"xl/worksheets/sheet{at}.xml"] = (
            f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>'
        )
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name, text in parts.items():
            packed.writestr(name, text)
    return data.getvalue()


def _cell(value: str | float) -> str:
    return (
        f'<c t="inlineStr"><is><t>{value}</t></is></c>'
        if isinstance(value, str)
        else f"<c><v>{value}</v></c>"
    )


def test_no_message_about_a_list_shows_a_signature() -> None:
    """The list itself may have a signed address."""
    with pytest.raises(InputNotFoundError, match=r"--manifest memory://none/list\.csv: no such") as caught:
        entries("memory://none/list.csv?sig=5ec4e7")
    assert "5ec4e7" not in str(caught.value)
