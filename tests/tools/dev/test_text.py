"""What is written beside the code: links lead somewhere, the index is whole, exemptions say why."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PRUNED = {".git", ".venv", "var", "node_modules", "__pycache__"}
LINK = re.compile(r"\]\(([^)\s]+)\)")
EXEMPTION = re.compile(r"#\s*(?:noqa\b:?|type:\s*ignore\b)(?:\s*\[[a-z, -]+\]|[ A-Z0-9,]+(?![a-z]))?")
ELSEWHERE = re.compile(r"(?:the same|(?:as|see) (?:above|below))\b(?! \w)")
SWITCHED_OFF = re.compile(r'^ {4}"[A-Z]+[0-9]*",(.*)$', re.MULTILINE)


def files(*suffixes: str) -> Iterator[Path]:
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in PRUNED]
        yield from (Path(folder, name) for name in names if name.endswith(suffixes))


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings have on GitHub."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_link_of_a_page_leads_to_a_file_and_a_heading() -> None:
    """A file that was moved or a heading that was renamed leaves no link to nothing."""
    broken = []
    for page in files(".md"):
        for link in LINK.findall(page.read_text("utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, heading = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (heading and heading not in headings(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_path_of_the_table_of_places_is_there() -> None:
    """CONTRIBUTING says which file answers a question; a name after another lies beside it, or in it."""
    rows = re.findall(r"^\| .* \| (.*`.*) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    room = ROOT / "pipeline_image" / "src" / "imagebatch"
    absent, found = [], 0
    for row in rows:
        places = [ROOT, room.parent, room]
        for name in re.findall(r"`([^`]+)`", row):
            there = next((base / name for base in places if (base / name).exists()), None)
            if there is None:
                absent.append(name)
            else:
                places += [there, there.parent]
                found += 1
    assert absent == []
    assert found > 60


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to each page below docs/."""
    linked = set(LINK.findall((ROOT / "docs/README.md").read_text("utf-8")))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").glob("*/*.md")}
    assert pages - linked == set()


def without_reason(line: str) -> bool:
    """Whether a line switches a linter off and does not say why, or only that another line does."""
    places = list(EXEMPTION.finditer(line))
    if not places:
        return False
    reason = line[places[-1].end() :].strip(" -()#")
    return not reason or ELSEWHERE.match(reason) is not None


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("x = 1", False),
        ("x = y  # noqa: S101 (a pipe, made below)", False),
        ("x = y  # noqa: PTH118, PTH123 - bytes names", False),
        ("x = y  # type: ignore[misc]  # not installed where this is linted", False),
        ("x = y  # type: ignore[attr-defined]  # noqa: SLF001 - no other way to wait", False),
        ("x = y  # noqa", True),
        ("x = y  # noqa: S101", True),
        ("x = y  # noqa: S101 (the same)", True),
        ("x = y  # noqa: S101 - as above: it may fail", True),
        ("x = y  # type: ignore[arg-type]", True),
    ],
)
def test_a_missing_reason_is_noticed(line: str, missing: bool) -> None:  # noqa: FBT001 - a column of the table
    """The rule below tells a reason from none, in both spellings."""
    assert without_reason(line) is missing


def test_every_exemption_says_why() -> None:
    """A reason that stands in another line would be lost when that line goes."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files(".py")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if without_reason(line)
    ]
    assert found == []


def test_every_rule_that_is_switched_off_says_why() -> None:
    """The ignores of pyproject.toml carry their reasons too."""
    comments = SWITCHED_OFF.findall((ROOT / "pyproject.toml").read_text("utf-8"))
    assert len(comments) > 20
    reasons = [text.strip(" #") for text in comments]
    assert [text for text in reasons if not text or ELSEWHERE.match(text)] == []
