"""Facts into HTML: one file, no script, nothing fetched. Every text is escaped by the template engine."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from imagebatch import __version__
from imagebatch.contracts.layout import HISTORY, HISTORY_PAGE
from imagebatch.images.decoders import Decoders
from imagebatch.stages.report.facts import Facts
from imagebatch.stages.report.pictures import with_thumbnails

NOT_KNOWN = "\u2013"


def report_page(facts: Facts, decoders: Decoders) -> str:
    """Return report.html, less than 2 MB however large the run."""
    queue = facts.predictions.queue
    groups = [facts.failures, facts.slowest, queue, *(check["rows"] for check in facts.checks)]
    with_thumbnails(facts.run, facts.description, groups, decoders)
    return render(
        "report.html.j2",
        facts=facts,
        certificate=facts.certificate,
        counts=facts.certificate.counts,
        left_out=facts.summary.left_out,
        model=facts.certificate.model,
        answers=facts.predictions,
        summary=facts.summary,
        drift=facts.drift,
        queue=queue,
        history=f"{HISTORY}/{HISTORY_PAGE}",
        version=__version__,
    )


def render(template: str, **content: Any) -> str:
    """Render a page from one of the templates."""
    return _environment().get_template(template).render(**content)


def compile_templates() -> None:
    """Compile all templates, once for this process."""
    environment = _environment()
    for name in environment.list_templates(extensions=["j2", "css"]):
        environment.get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("imagebatch.stages.report"),
        autoescape=select_autoescape(["j2"]),  # not the style sheet, which holds nobody else's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "duration": duration, "percent": percent, "shorten": shorten}
    return environment


def count(number: float) -> str:
    """Return a count as people read it: 2,624."""
    return f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """Return seconds as `0.4 s`, `12 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds is None:
        return NOT_KNOWN
    if seconds < 9.95:  # noqa: PLR2004 (where one decimal stops helping)
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def percent(share: float | None) -> str:
    """Return a share of 1 in per cent, with up to two decimals below 10 % and up to one above."""
    if share is None:
        return NOT_KNOWN
    text = f"{share * 100:.2f}" if 0 < share < 0.0995 else f"{share * 100:.1f}"  # noqa: PLR2004 (below 10 %)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def shorten(text: str, length: int = 48) -> str:
    """Return the two ends of a long text, which is where names differ."""
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
