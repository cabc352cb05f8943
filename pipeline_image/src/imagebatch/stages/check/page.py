"""What Great Expectations found, as one small page: no script, nothing fetched, every text escaped.

Its own Data Docs load scripts and styles from public hosts, leave labels unescaped and weigh megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from imagebatch.errors import one_line

Results = Mapping[str, Sequence[Mapping[str, Any]]]

_MOST_EXAMPLES = 5
_LONGEST = 200
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
td { overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
.good::before { content: "✓ "; color: #2a8a3c; }
.bad::before { content: "✗ "; color: #c8322d; }
"""


@dataclass(slots=True)
class _Row:
    """One expectation over all frames: rows looked at, how many were unexpected, some of them."""

    subject: str
    sentence: str
    rows: int = 0
    unexpected: int = 0
    met: bool = True
    seen: list[str] = field(default_factory=list)

    def add(self, outcome: Mapping[str, Any]) -> None:
        result = outcome.get("result") or {}
        self.rows += int(result.get("element_count") or 0)
        self.unexpected += int(result.get("unexpected_count") or 0)
        if outcome["success"]:
            return
        self.met = False
        seen = result.get("partial_unexpected_list") or [
            result.get("observed_value", outcome.get("exception_info"))
        ]
        self.seen += [text for value in seen if (text := one_line(value, 80)) not in self.seen]


def page(results: Results) -> str:
    """Return the page; its size does not grow with the number of frames.

    Args:
        results: Great Expectations' results as JSON types: by suite, one per frame.
    """
    suites = {name: _rows(found) for name, found in results.items()}
    broken = sum(not row.met for rows in suites.values() for row in rows)
    total = sum(map(len, suites.values()))
    verdict = f"{broken} of {total} expectations failed" if broken else f"All {total} expectations are met"
    title = escape(", ".join(suites))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1 class="{"bad" if broken else "good"}">{verdict}</h1>\n'
        f"{''.join(_table(name, rows) for name, rows in suites.items())}</body>\n</html>\n"
    )


def _rows(found: Sequence[Mapping[str, Any]]) -> list[_Row]:
    rows: dict[tuple[str, str], _Row] = {}
    for frame in found:
        for outcome in frame["results"]:
            subject, sentence = _said(outcome["expectation_config"])
            rows.setdefault((subject, sentence), _Row(subject, sentence)).add(outcome)
    return list(rows.values())


def _said(config: Mapping[str, Any]) -> tuple[str, str]:
    """Say which column an expectation is about, and what is expected of it."""
    wanted = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    subject = str(wanted.pop("column", wanted.pop("column_A", "the table")))
    match config["type"]:
        case "expect_column_values_to_not_be_null":
            text = "is never missing"
        case "expect_column_values_to_be_unique":
            text = "occurs once"
        case "expect_column_values_to_match_regex":
            text = f"matches {wanted['regex']}"
        case "expect_column_values_to_be_in_set":
            values = list(map(str, wanted["value_set"]))
            text = f"is {'one of ' if len(values) > 1 else ''}{', '.join(values)}"
        case "expect_column_values_to_be_between":
            least, most = wanted.get("min_value"), wanted.get("max_value")
            text = f"is at least {least}" if most is None else f"is between {least} and {most}"
        case "expect_column_pair_values_a_to_be_greater_than_b":
            text = f"is at least {wanted['column_B']}"
        case other:
            text = f"{other.replace('_', ' ')} {wanted}"
    return subject, one_line(text, _LONGEST)


def _table(name: str, rows: Sequence[_Row]) -> str:
    head = "<tr><th>Column</th><th>Expected</th><th>Rows</th><th>Unexpected</th><th>For example</th></tr>"
    lines = (
        f'<tr><td class="{"good" if row.met else "bad"}">{escape(row.subject)}</td>'
        f'<td>{escape(row.sentence)}</td><td class="number">{row.rows:,}</td>'
        f'<td class="number">{row.unexpected:,}</td>'
        f"<td>{escape(', '.join(row.seen[:_MOST_EXAMPLES]))}</td></tr>\n"
        for row in rows
    )
    return f"<h2>{escape(name)}</h2>\n<table>\n{head}\n{''.join(lines)}</table>\n"
